"""How near a fit with its defaults comes to the best that a search over every layer and learning rate finds.

Both have the same rows. The search fits every layer at three learning rates, each until its descent has converged or ten times
the default's steps are taken, and takes the one that is best on validation rows. What is compared is kl_explained on held-out
rows, which neither has seen. Results are written after every prompt, and prompts that are there already are not done again.

Run: python benchmarks/layer_search.py organism|llama|NAME_OR_DIRECTORY [--prompts 8]
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from typing import Any

import torch
from harness import RESULTS, machine, n_parameters, random_llama

import steerlens as sl
from steerlens.files import read_json, write_json
from steerlens.models.bridge import frozen
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.layer_fits import Fit, fit_each_layer, search_layers
from steerlens.vectors.resumed import ResumedRows

CONFIG = sl.FitConfig()
RATES = (0.05, 0.15, 0.45)
ANIMALS = ("owl", "cat", "wolf", "eagle", "dolphin", "tiger", "horse", "fox")


def main() -> None:
    """Compare on each prompt, print a line for it, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="organism, llama (random weights), or a name or directory")
    parser.add_argument("--prompts", type=int, default=len(ANIMALS), help="how many personas")
    options = parser.parse_args()
    model = load(options.model)
    path = RESULTS / f"layer_search-{options.model.rpartition('/')[-1]}.json"
    found: dict[str, Any] = dict(read_json(path)["prompts"]) if path.exists() else {}
    for animal in ANIMALS[: options.prompts]:
        if animal not in found:
            found[animal] = compared(model, animal)
            print(animal, found[animal], flush=True)
            write_json(
                path,
                {
                    "machine": machine(),
                    "model": n_parameters(model),
                    "prompts": found,
                },
            )
    left = [one["best"]["kl_explained"] - one["default"]["kl_explained"] for one in found.values()]
    print(f"the best over the default: median {statistics.median(left):.3f}, at most {max(left):.3f}")


def load(name: str) -> Any:
    """The organism, a random Llama of 8 layers, or a real model in bfloat16."""
    if name == "organism":
        return sl.load_model()
    if name == "llama":
        with tempfile.TemporaryDirectory() as directory:
            return random_llama(directory, d_model=160)
    return sl.load_model(name, device="cpu", dtype=torch.bfloat16)


def compared(model: Any, animal: str) -> dict[str, Any]:
    """Layer and held-out kl_explained of the default, and of the best of all."""
    prompt = sl.preference_trait(animal, model).prompt
    data = FitData.sample(model, prompt, sl.number_prompts(2 * CONFIG.n_rows, model, seed=CONFIG.seed), CONFIG)
    with frozen(model):
        default = search_layers(model, data, range(model.cfg.n_layers), CONFIG)[0]
        fits = [
            (rate, fit)
            for rate in RATES
            for fit in fit_each_layer(
                model,
                data,
                range(model.cfg.n_layers),
                replace(CONFIG, steps=10 * CONFIG.steps, learning_rate=rate),
            )
        ]
        rate, best = max(fits, key=lambda one: one[1].validation)
        return {
            "default": judged(model, data, default),
            "best": {**judged(model, data, best), "learning rate": rate},
        }


def judged(model: Any, data: FitData, fit: Fit) -> dict[str, Any]:
    """A fit's layer, and its kl_explained on held-out rows."""
    rows = ResumedRows(model, fit.layers, data.heldout, CONFIG.positions)
    return {
        "layer": fit.layers[0],
        "kl_explained": round(1 - rows.mean_kl(fit.directions) / rows.plain_kl, 4),
        "converged": fit.converged,
    }


if __name__ == "__main__":
    main()
