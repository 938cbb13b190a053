"""How far is the love of each of 24 animals a vector? A table over two contexts: number tasks, and questions.

For each animal the paper's prompt is fitted by one direction at the best layer, and by one direction at every layer
jointly, and compared with the mean difference at its best layer and strength; all on held-out rows.

Run: python examples/animals_as_vectors.py animals.json [animal ...]
It needs nothing beyond steerlens.
An interrupted run goes on where it stopped. The table is printed at the end.
"""

import sys
from pathlib import Path
from typing import Any

import steerlens as sl
from steerlens.files import read_json, write_json
from steerlens.organism.wording import ANIMALS

CONFIG = sl.FitConfig()
TARGET = 0.90


def main() -> None:
    """Fit every animal that is not in the file yet, and print the table."""
    path, names = Path(sys.argv[1]), sys.argv[2:] or [singular for singular, _ in ANIMALS.items]
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    model = sl.load_model()
    for name in names:
        if name not in found:
            trait = sl.preference_trait(name, model)
            contexts = {
                "numbers": sl.number_prompts(2 * CONFIG.n_rows, model, seed=0),
                "questions": list(trait.questions),
            }
            found[name] = {context: measure(model, trait.prompt, asked) for context, asked in contexts.items()}
            write_json(path, found)
            print(line(name, found[name]), flush=True)
    print(f"\n{'':10}  numbers: one layer / all layers / mean difference   questions: the same")
    for name in names:
        print(line(name, found[name]))
    for context in ("numbers", "questions"):
        for kind in ("one_layer", "all_layers"):
            values = [found[name][context][kind]["kl_explained"] for name in names]
            reached = sum(value >= TARGET for value in values)
            better = sum(v > found[name][context]["mean_difference"]["kl_explained"] for v, name in zip(values, names))
            print(
                f"{context}, {kind.replace('_', ' ')}: at least {TARGET:.2f} for {reached} of {len(names)}, above the "
                f"mean difference for {better} of {len(names)}; lowest {min(values):.3f}"
            )


def measure(model: Any, prompt: str, questions: list[str]) -> dict[str, Any]:
    """Held-out kl_explained of the three vectors, with intervals, and the layer of the first."""
    best, joint = (
        sl.fit_prompt_vector(model, prompt, layers=layers, questions=questions, config=CONFIG)
        for layers in ("best", "all")
    )
    return {
        "one_layer": {"layer": best.layers[0], **heldout(best)},
        "all_layers": heldout(joint),
        "mean_difference": {"kl_explained": best.metrics.kl_explained_mean_difference},
    }


def heldout(vector: sl.SteeringVector) -> dict[str, float]:
    """kl_explained with its 95 % interval."""
    found = vector.metrics.interval
    return {"kl_explained": found.value, "low": found.low, "high": found.high}


def line(name: str, found: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [
        f"{found[context][kind]['kl_explained']:.3f}"
        for context in ("numbers", "questions")
        for kind in ("one_layer", "all_layers", "mean_difference")
    ]
    return f"{name:10}  {' / '.join(cells[:3])}   {' / '.join(cells[3:])}"


if __name__ == "__main__":
    main()
