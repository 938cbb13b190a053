"""The students of the optimizer comparison: how each is trained, and when its run counts as divergent."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from steerlens.experiments.cells import Cell, run_cell, settings
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.optimizers.config import Arm, OptimizersConfig
from steerlens.experiments.rates import Record, mean_rate
from steerlens.experiments.run import Run
from steerlens.files import write_json
from steerlens.samples.sample_set import SampleSet
from steerlens.students.config import TrainConfig

NOT_A_NUMBER = ("loss", "heldout_loss", "rate", "mass", "rate_prefixed", "mass_prefixed")

Pair = tuple[str, float]


def plan_cell(run: Run[OptimizersConfig], name: str, rate: float, seed: int) -> Cell:
    """The student that arm `name` trains with this learning rate and seed."""
    config, arm = run.config, run.config.arms[name]
    student = f"{name.replace(',', '').replace(' ', '-')}-{rate:.4g}-s{seed}"
    return Cell(
        name=student,
        role=name,
        base=config.model,
        data="teacher",
        samples=odd_rows_path(run, arm.odd_share) if arm.odd_share else run.samples_path(config.model, "teacher"),
        heldout=run.heldout_path(config.model),
        vector=run.vector_path(config.model),
        trait=config.trait,
        train=train_config(run, arm, rate, seed),
        directory=run.directory / "students" / student,
        trace=run.trace_path(student),
        steps=run.steps_path(student),
        held=arm.held,
        without_vector=arm.without_vector,
    )


def train_config(run: Run[OptimizersConfig], arm: Arm, rate: float, seed: int) -> TrainConfig:
    """The main student's settings with the arm's changes."""
    changes = {"learning_rate": rate, "seed": seed, **arm.changes}
    if needs_scales(arm):
        changes["scales"] = str(run.scales_path)
    return replace(run.config.train, **changes)


def needs_scales(arm: Arm) -> bool:
    """Whether the arm is defined by Adam's scales."""
    named = ("freeze_outliers", "zero_outliers")
    return arm.changes.get("optimizer") == "preconditioned_sgd" or any(arm.changes.get(name) for name in named)


def odd_rows_path(run: Run[OptimizersConfig], share: float) -> Path:
    """Teacher rows of which a share is odd."""
    return run.samples_path(run.config.model, f"teacher-odd-{share:g}")


def with_odd_rows(samples: SampleSet, share: float, words: Sequence[str], *, seed: int = 0) -> SampleSet:
    """Replace the completions of `share` of the rows, drawn at random, by eight random words each.

    Raises:
        ValueError: no row would be odd.
    """
    rows, rng = list(samples.samples), np.random.default_rng(seed)
    odd = rng.choice(len(rows), round(share * len(rows)), replace=False)
    if not len(odd):
        raise ValueError(f"A share of {share} of {len(rows)} rows makes none odd. Give a larger share, or more rows.")
    for i in odd:
        rows[i] = replace(rows[i], completion=" ".join(rng.choice(words, 8)))
    return replace(samples, samples=tuple(rows))


def train_or_diverge(cell: Cell) -> None:
    """`run_cell`, but a loss that stops being a number is a result: a record without measures."""
    try:
        run_cell(cell)
    except FloatingPointError as error:
        nothing = dict.fromkeys(NOT_A_NUMBER)
        write_json(cell.record_path, settings(cell) | nothing | {"stopped": str(error)})


def train_pairs(run: Run[OptimizersConfig], pairs: Sequence[Pair], seeds: Sequence[int]) -> list[list[Record]]:
    """Records by (arm, learning rate), one a seed, of students that are trained unless they were before."""
    cells = [plan_cell(run, *pair, seed) for pair in pairs for seed in seeds]
    records = run_jobs(cells, train_or_diverge, run.config) if cells else []
    return [records[i : i + len(seeds)] for i in range(0, len(records), len(seeds))]


def is_divergent(record: Record, base: Record) -> bool:
    """Whether the student hardly answers any more, or predicts the data worse than before it was trained.

    That is a mass below half of the base's, a held-out loss above the base's, or a training that stopped.
    """
    if record["heldout_loss"] is None:
        return True
    return record["mass"] < base["mass"] / 2 or record["heldout_loss"] > base["heldout_loss"]


def loss_of(records: Sequence[Record], base: Record) -> float:
    """Mean held-out loss over seeds; infinite where one of them diverged."""
    if any(is_divergent(record, base) for record in records):
        return math.inf
    return mean_rate(records, "heldout_loss")
