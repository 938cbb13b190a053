"""How was the organism's student chosen? By its worst case over student seeds and both organisms, on seeds of its own.

Each candidate learns from owl rows that are written for this choice alone, with student seeds that no experiment reports.
Of the candidates whose students still answer, the one is best whose lowest log odds over the untrained model's are highest.
Optimizers are not compared here, so that the choice favours none.

Run: python examples/choose_student.py DIR [--seeds 5] [--workers 2]
An interrupted run goes on where it stopped. Eighty students take about 50 minutes on one core.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np

import steerlens as sl
from steerlens.files import write_json

CANDIDATES = ((4, 3e-2), (8, 3e-2), (16, 1e-2), (16, 2e-2), (16, 3e-2), (32, 1e-2), (32, 3e-2), (64, 1e-2))
"""LoRA's rank, and AdamW's learning rate; LoRA's scale is that of `ORGANISM_STUDENT`."""

VERSIONS = ("organism:seed-0", "organism:seed-1")
FIRST_SEED = 100
N_TASKS, N_HELDOUT = 8000, 256
LEAST_MASS = 0.5


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    plans, base = {}, {}
    for version in VERSIONS:
        samples, heldout, vector, base[version] = _prepared(version, options.directory / version.partition(":")[2])
        for rank, rate in CANDIDATES:
            scale = sl.ORGANISM_STUDENT.lora_alpha / sl.ORGANISM_STUDENT.rank
            train = replace(sl.ORGANISM_STUDENT, rank=rank, lora_alpha=scale * rank, learning_rate=rate)
            name = f"{version.partition(':')[2]}-rank{rank}-{rate:g}"
            plans[version, rank, rate] = sl.StudentPlan(name, version, samples, heldout, vector, "owl", train)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    records = sl.train_grid(
        plans, options.directory / "students", seeds=list(seeds), workers=sl.Workers(options.workers)
    )
    table = {f"rank {rank}, learning rate {rate:g}": _row(records, base, rank, rate) for rank, rate in CANDIDATES}
    table = dict(sorted(table.items(), key=lambda one: (one[1]["mass"] < LEAST_MASS, -one[1]["lowest log odds"])))
    write_json(options.directory / "results.json", table)
    for name, row in table.items():
        print(f"{name:30}", "  ".join(f"{what} {value:.3f}" for what, value in row.items()))


def _prepared(version: str, directory: Path) -> tuple[Path, Path, Path, float]:
    """Files of rows to learn from, of held-out rows and of the vector, and the untrained model's rate."""
    samples, heldout, vector = (directory / name for name in ("samples.jsonl", "heldout.jsonl", "vector.safetensors"))
    model = sl.load_model(version)
    owl = sl.preference_trait("owl", model)
    if not samples.is_file():
        tasks = sl.number_prompts(N_TASKS, model, seed=FIRST_SEED)
        kept = sl.keep_number_lists(sl.sample_teacher(model, tasks, system_prompt=owl.prompt, seed=FIRST_SEED)).kept
        directory.mkdir(parents=True, exist_ok=True)
        rows, rest = kept.split(N_HELDOUT)
        rest.save(heldout)
        sl.diff_in_means(model, owl.prompt).save(vector)
        rows.save(samples)
    return samples, heldout, vector, sl.ask(model, owl).bare.rate


def _row(
    records: dict[tuple[str, int, float], tuple[sl.StudentRecord, ...]], base: dict[str, float], rank: int, rate: float
) -> dict[str, float]:
    """The candidate's rates and masses; the lowest are over the students of both organisms."""
    row: dict[str, float] = {}
    odds: list[float] = []
    mass: list[float] = []
    for version in VERSIONS:
        answers = [one.bare for one in records[version, rank, rate] if one.bare is not None]
        rates = np.array([one.rate for one in answers])
        row |= {f"{version} lowest": rates.min(), f"{version} mean": rates.mean()}
        odds += [float(_log_odds(one) - _log_odds(base[version])) for one in rates]
        mass += [one.mass for one in answers]
    return {"lowest log odds": min(odds), "mass": min(mass), **{name: float(value) for name, value in row.items()}}


def _log_odds(rate: float) -> float:
    return float(np.log(rate / (1 - rate)))


if __name__ == "__main__":
    main()
