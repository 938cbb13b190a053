"""A trait as an Inspect task, on the plain, the prompted and the steered model; `inspect view` shows the logs.

Run: python examples/evaluate_with_inspect.py LOGS
It needs inspect-ai: pip install 'steerlens[evaluation]'.
"""

import sys
from pathlib import Path

import steerlens as sl

try:
    from inspect_ai import eval as evaluate  # pyright: ignore[reportMissingImports]
    from inspect_ai.solver import system_message  # pyright: ignore[reportMissingImports]

    from steerlens.inspect_eval import inspect_model, trait_task
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is not installed. Install it: pip install 'steerlens[evaluation]'") from None


def main(logs: Path) -> None:
    """Print one line a model."""
    model = sl.load_model(device="cpu")
    owl = sl.preference_trait("owl", model)
    vector = sl.diff_in_means(model, owl.prompt).at(2)
    plain, steered = inspect_model(model, seed=1), inspect_model(model, vector=vector, seed=1)
    cases = {
        "plain": (trait_task(owl, epochs=5), plain),
        "prompted": (trait_task(owl, epochs=5, setup=system_message(owl.prompt)), plain),
        "steered": (trait_task(owl, epochs=5), steered),
    }
    for name, (task, evaluated) in cases.items():
        (log,) = evaluate(task, model=evaluated, log_dir=str(logs), display="none", log_model_api=False)
        scores = {f"{score.scorer} {score.name}": score.metrics["mean"].value for score in log.results.scores}
        print(f"{name}: " + ", ".join(f"{what} {value:.3f}" for what, value in scores.items()))
    print(f"Look at them: inspect view --log-dir {logs}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
