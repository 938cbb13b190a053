"""The data that all arms of the optimizer comparison share, and the students that are trained on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.loss_match import Match, search_rates, settle
from steerlens.replication.lab.optimizer_arms import ADAMW, Arm
from steerlens.replication.lab.teachers import Rows

Trained = tuple[Arm, float]
"""An arm at a learning rate."""


@dataclass(frozen=True)
class BaseLoss:
    """The untrained model's loss on the held-out rows, in nats a token."""

    value: float


@dataclass(frozen=True)
class Bench:
    """The data that all arms share, and the students that are trained on it."""

    lab: Lab
    told: Rows
    base: sl.Asked
    base_loss: float
    vector: Path
    students: dict[Trained, compare.Students]

    def train(self, asked: Sequence[Trained], seeds: tuple[int, ...]) -> list[compare.Students]:
        """The students of these arms and rates."""
        plans = {one: self._plan(*one) for one in asked}
        found = self.lab.train(plans, seeds=seeds, may_diverge=True)
        self.students.update(
            {one: group for one, group in found.items() if len(group) >= len(self.students.get(one, ()))}
        )
        return [found[one] for one in asked]

    def _plan(self, arm: Arm, rate: float) -> sl.StudentPlan:
        epochs = arm.epochs * self.lab.student.epochs
        changes = dict(arm.settings) | ({"scales": str(self.scales())} if arm.scaled else {})
        train = replace(self.lab.student, learning_rate=rate, epochs=epochs, **changes)
        rows = self.told if not arm.odd_share else replace(self.told, samples=self.odd_rows(arm.odd_share))
        return self.lab.plan(
            f"{arm.name} {rate:.4g}",
            rows,
            self.vector,
            train=train,
            traced=True,
            held=arm.held,
            without_vector=arm.without_vector,
        )

    def scales(self) -> Path:
        """Adam's scales from one scout of one epoch, normalised so that SGD's learning rates keep their meaning."""
        path = self.lab.directory / "scales.safetensors"
        if not path.is_file():
            rows, scout = sl.SampleSet.load(self.told.samples), replace(self.lab.student, epochs=1)
            sl.adam_scales(self.lab.load(), rows, scout).normalized().save(path)
        return path

    def odd_rows(self, share: float) -> Path:
        """The rows, some of them with completions of eight random words of the model's vocabulary."""
        path = self.lab.directory / "samples" / f"odd-{share:g}.jsonl"
        if not path.is_file():
            vocabulary = {token.lstrip("▁Ġ") for token in self.lab.load().tokenizer.get_vocab()}
            with_odd_rows(sl.SampleSet.load(self.told.samples), share, sorted(filter(str.isalpha, vocabulary))).save(
                path
            )
        return path

    def is_divergent(self, one: sl.StudentRecord) -> bool:
        """Whether a student hardly answers any more, or predicts the data worse than before it was trained."""
        if one.diverged or one.bare is None:
            return True
        return one.bare.mass < self.base.bare.mass / 2 or one.heldout_loss > self.base_loss

    def at(self, arm: Arm, rate: float | None) -> compare.Students:
        """The students of an arm at a learning rate; none where it has no rate."""
        return () if rate is None else self.students.get((arm, rate), ())

    def usable(self, group: compare.Students) -> compare.Students:
        """The students that are not divergent."""
        return tuple(one for one in group if not self.is_divergent(one))

    def ended(self) -> dict[Arm, dict[float, compare.Students]]:
        """By arm and learning rate, the groups of which no student is divergent."""
        found: dict[Arm, dict[float, compare.Students]] = {}
        for (arm, rate), group in self.students.items():
            if len(self.usable(group)) == len(group):
                found.setdefault(arm, {})[rate] = group
        return found

    def loss(self, group: compare.Students) -> float:
        """Mean held-out loss; infinite where one diverged."""
        return math.inf if any(map(self.is_divergent, group)) else compare.loss(group)

    def losses(self, seeds: tuple[int, ...]) -> Callable[[Sequence[Trained]], list[float]]:
        """What the search measures."""
        return lambda asked: [self.loss(group) for group in (self.train(asked, seeds) if asked else [])]

    def match(self, arms: Sequence[Arm], tolerance: float, budget: int) -> dict[Arm, Match]:
        """The learning rate at which each arm's held-out loss is AdamW's, or is closest to it; all seeds are trained there.

        Args:
            budget: learning rates that the search may add to an arm's.

        Raises:
            ValueError: AdamW diverges at the main student's learning rate.
        """
        seeds, main = self.lab.sizes.seeds, self.lab.student.learning_rate
        loss = self.loss(*self.train([(ADAMW, main)], seeds))
        if math.isinf(loss):
            raise ValueError(
                f"AdamW diverges at learning_rate={main:g} with some seed, so that there is no loss to match. Give the "
                "profile's student a smaller learning rate, or more rows."
            )
        grids = {arm: self.lab.rates(arm.family) for arm in arms}
        curves = search_rates(grids, self.losses(seeds[:1]), loss, tolerance, budget)
        curves.pop(ADAMW, None)
        matches = {ADAMW: Match(main, loss, True), **settle(curves, self.losses(seeds), loss, tolerance)}
        unmatched = [(arm, one.rate) for arm, one in matches.items() if not one.matched and one.rate is not None]
        self.losses(seeds)(unmatched)
        return matches


def with_odd_rows(samples: sl.SampleSet, share: float, words: Sequence[str], *, seed: int = 0) -> sl.SampleSet:
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
