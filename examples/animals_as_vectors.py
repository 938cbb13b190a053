"""How far is the love of each of 24 animals a vector? A table over two contexts: number tasks, and questions.

For each animal the paper's prompt is fitted by one direction at the best layer, and by one direction at every layer
jointly, and compared with the mean difference at its best layer and strength; all on held-out rows.

Run: python examples/animals_as_vectors.py animals.json [animal ...]
An interrupted run goes on where it stopped. The table is printed at the end.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import steerlens as sl
from steerlens.files import read_json, write_json
from steerlens.organism.wording import ANIMALS
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.fit_quality import explained_with_interval
from steerlens.vectors.layer_fits import Fit, fit_each_layer, fit_layers, frozen
from steerlens.vectors.resumed import ResumedRows

CONFIG = sl.FitConfig(n_train=512)
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
    """Held-out kl_explained of the three vectors, with intervals, and the layers of the first."""
    data = FitData.sample(model, prompt, questions, CONFIG)
    with frozen(model):
        layers = list(range(model.cfg.n_layers))
        fits = fit_each_layer(model, data, layers, replace(CONFIG, steps=CONFIG.steps // 3))
        best = max(fits, key=lambda fit: fit.validation).refined(model, data, CONFIG)
        baseline = max(fits, key=lambda fit: fit.mean_difference_validation)
        joint = fit_layers(model, data, layers, CONFIG)
        return {
            "one_layer": {"layer": best.layers[0], **heldout(model, data, best, best.directions)},
            "all_layers": heldout(model, data, joint, joint.directions),
            "mean_difference": {
                "layer": baseline.layers[0],
                **heldout(model, data, baseline, baseline.mean_difference),
            },
        }


def heldout(model: Any, data: FitData, fit: Fit, directions: Any) -> dict[str, float]:
    """kl_explained with its 95 % interval."""
    rows = ResumedRows(model, fit.layers, data.heldout, CONFIG.positions)
    steered, plain = rows.row_kl(directions)[:, 0], rows.row_kl(rows.nothing)[:, 0]
    explained, low, high = explained_with_interval(steered, plain, rows.questions, seed=CONFIG.seed)
    return {"kl_explained": explained, "low": low, "high": high}


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
