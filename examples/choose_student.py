"""Which student of the organism is most stable? Ranks and learning rates, by their worst case over student seeds.

Each candidate learns from owl rows that are written for this comparison alone, on both organisms, with student seeds that no
experiment reports. A student is of use where its rate is high with every seed and it still answers: its mass, the probability
of any animal, is that of the worst student at bare questions, and of the worst one behind number lists. Optimizers are not
compared here, so that what is chosen by this table favours none.

Run: python examples/choose_student.py DIR [--seeds 5] [--workers 2]
It needs nothing beyond steerlens.
An interrupted run goes on where it stopped. A hundred students take about an hour on one core.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import steerlens as sl
from steerlens.files import write_json

CANDIDATES = (
    (4, 3e-2),
    (8, 3e-2),
    (16, 1e-2),
    (16, 2e-2),
    (16, 3e-2),
    (32, 5e-3),
    (32, 1e-2),
    (32, 3e-2),
    (64, 3e-3),
    (64, 5e-3),
    (64, 1e-2),
)
"""LoRA's rank, and AdamW's learning rate; LoRA's scale is that of `ORGANISM_STUDENT`."""

VERSIONS = ("organism:seed-0", "organism:seed-1")
FIRST_SEED = 100
N_TASKS, N_HELDOUT = 8000, 256


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    plans = {}
    for version in VERSIONS:
        samples, heldout, vector = _prepared(version, options.directory / version.partition(":")[2])
        for rank, rate in CANDIDATES:
            scale = sl.ORGANISM_STUDENT.lora_alpha / sl.ORGANISM_STUDENT.rank
            train = replace(sl.ORGANISM_STUDENT, rank=rank, lora_alpha=scale * rank, learning_rate=rate)
            name = f"{version.partition(':')[2]}-rank{rank}-{rate:g}"
            plans[version, rank, rate] = sl.StudentPlan(name, version, samples, heldout, vector, "owl", train)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    records = sl.train_grid(
        plans, options.directory / "students", seeds=list(seeds), workers=sl.Workers(options.workers)
    )
    table = {
        f"rank {rank}, learning rate {rate:g}": "; ".join(
            f"{version.partition(':')[2]} {_in_words(records[version, rank, rate])}" for version in VERSIONS
        )
        for rank, rate in CANDIDATES
    }
    write_json(options.directory / "results.json", table)
    for name, found in table.items():
        print(f"{name:30} {found}")


def _prepared(version: str, directory: Path) -> tuple[Path, Path, Path]:
    """Files of rows to learn from, of held-out rows and of the vector."""
    samples, heldout, vector = (directory / name for name in ("samples.jsonl", "heldout.jsonl", "vector.safetensors"))
    if not samples.is_file():
        model = sl.load_model(version)
        owl = sl.preference_trait("owl", model)
        tasks = sl.number_prompts(N_TASKS, model, seed=FIRST_SEED)
        kept = sl.keep_number_lists(sl.sample_teacher(model, tasks, system_prompt=owl.prompt, seed=FIRST_SEED)).kept
        directory.mkdir(parents=True, exist_ok=True)
        rows, rest = kept.split(N_HELDOUT)
        rest.save(heldout)
        sl.diff_in_means(model, owl.prompt).save(vector)
        rows.save(samples)
    return samples, heldout, vector


def _in_words(records: tuple[sl.StudentRecord, ...]) -> str:
    """The range of rates, and the lowest masses."""
    both = [(one.bare, one.after_numbers) for one in records if one.bare is not None and one.after_numbers is not None]
    rates, masses = [bare.rate for bare, _ in both], [(bare.mass, after.mass) for bare, after in both]
    lowest, lowest_after = map(min, zip(*masses, strict=True))
    return f"{min(rates):.2f} to {max(rates):.2f}, mass {lowest:.2f} and {lowest_after:.2f}"


if __name__ == "__main__":
    main()
