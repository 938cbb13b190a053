"""Cost of watching and of training options: a training step with each of them, over the plain step.

Run: python benchmarks/trace.py
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import torch

import steerlens as sl
from steerlens.experiments.config import ORGANISM_STUDENT
from steerlens.prompts.chat import as_chat

ROUNDS = 6


def main() -> None:
    """Print the ratios of interleaved medians."""
    torch.set_num_threads(1)
    model, owl = sl.load_model(device="cpu"), sl.preference_trait("owl")
    rows = sl.keep_number_lists(sl.sample_teacher(model, sl.number_prompts(700, seed=0))).kept
    vector = sl.diff_in_means(model, owl.prompt)
    probes = {"numbers": [as_chat(prompt) for prompt in sl.number_prompts(96, seed=9)]}

    def traced(**options: Any) -> dict[str, Any]:
        recorder = sl.trace_gradients(model, vector, **options)
        return {"on_start": recorder.watch, "on_step": recorder.record}

    def stepped() -> dict[str, Any]:
        recorder = sl.trace_steps(model, vector, probes, every=10)
        return {"on_step": recorder.before, "on_update": recorder.after}

    def trained(directory: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
        def run(watching: Callable[[], dict[str, Any]] = dict, **changes: Any) -> Callable[[], Any]:
            return lambda: sl.train_student(model, rows, replace(ORGANISM_STUDENT, epochs=1, **changes), **watching())

        yield "plain", run()
        yield "traced at the assistant tag", run(lambda: traced(positions="last_prompt"))
        yield "traced at every token", run(traced)
        yield "traced at every token, streamed", run(lambda: traced(directory=directory / "trace"))
        yield "96 probe chats before and after each 10th step", run(stepped)
        yield "without the vector's component", run(lambda: {"on_start": sl.without_component(vector)})
        yield "rows clipped one by one", run(row_clip_norm=1.0)
        yield "rotated basis", run(rotation_seed=0)
        yield "micro batches of 8 of 32 rows", run(micro_batch_size=8)
        yield "gradient checkpointing", run(gradient_checkpointing=True)
        state = {"checkpoints": directory / "state"}
        yield "state saved at each 10th step", run(lambda: _fresh(state), state_every=10)

    with tempfile.TemporaryDirectory() as directory:
        runs = dict(trained(Path(directory)))
        times = [{name: _seconds(run) for name, run in runs.items()} for _ in range(ROUNDS + 1)][1:]
    for name in list(runs)[1:]:
        ratios = [row[name] / row["plain"] for row in times]
        low, _, high = statistics.quantiles(ratios)
        print(f"{name}: {statistics.median(ratios):.2f} times the plain step (quartiles {low:.2f} to {high:.2f})")


def _fresh(state: dict[str, Path]) -> dict[str, Path]:
    """A state from an earlier round would leave nothing to train."""
    for path in state["checkpoints"].glob("*.safetensors"):
        path.unlink()
    return state


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
