"""What `fit_prompt_vector` costs on a real model, in forward passes over its own rows.

The unit is one forward pass of the model over all rows of the fit, prompts without the persona and completions, every
position's residual and no head. Times are CPU seconds of one thread; the unit is measured before and after each fit.

Run: python benchmarks/real_fit.py [--model NAME_OR_DIRECTORY] [--trait owl]
"""

import argparse
import time
from typing import Any

import torch
from harness import n_parameters, report

import steerlens as sl
from steerlens.forward import forward, head_at
from steerlens.vectors.fit_data import FitData, FitRows

CONFIG = sl.FitConfig()


def main() -> None:
    """Print and save the cost in forwards and the quality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="name or directory")
    parser.add_argument("--trait", default="owl", help="whose prompt is fitted")
    options = parser.parse_args()
    model = sl.load_model(options.model, device="cpu", dtype=torch.bfloat16)
    prompt = sl.preference_trait(options.trait, model).prompt
    questions = sl.number_prompts(2 * CONFIG.n_rows, model, seed=CONFIG.seed)
    data = FitData.sample(model, prompt, questions, CONFIG)
    rows = [*data.train, *data.validation, *data.heldout]
    results: dict[str, Any] = {}
    for name, layers in (("default", "best"), ("one layer", model.cfg.n_layers // 2)):
        before = seconds_of_forward(model, rows)
        start = time.process_time()
        vector = sl.fit_prompt_vector(model, prompt, layers=layers, questions=questions, config=CONFIG)
        took = time.process_time() - start
        unit = (before + seconds_of_forward(model, rows)) / 2
        results[name] = {
            "forwards": round(took / unit, 1),
            "CPU seconds": round(took),
            "layer": vector.layers[0],
            **{key: getattr(vector.metrics, key) for key in ("kl_explained", "converged", "kl_explained_shuffled")},
        }
        print(name, results[name], flush=True)
    tokens = sum(int(one.batch.attention_mask.sum()) for one in rows)
    report("real_fit", [], model=n_parameters(model), prompt=prompt, rows=CONFIG.n_rows, tokens=tokens, results=results)


@torch.no_grad()
def seconds_of_forward(model: Any, rows: list[FitRows]) -> float:
    """CPU seconds of one forward pass over the rows."""
    start = time.process_time()
    for one in rows:
        with head_at(model, torch.zeros_like(one.batch.attention_mask[:, -1:])):
            forward(model, one.batch, logits_to_keep=1)
    return time.process_time() - start


if __name__ == "__main__":
    main()
