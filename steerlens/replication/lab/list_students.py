"""Students of the lists that several teachers wrote, by any optimizer; the learning rates at which they reach one loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.loss_match import Curve, Match, search_rates, settle
from steerlens.replication.lab.optimizer_arms import ADAMW, Arm
from steerlens.replication.lab.schooling import UNTRAINED
from steerlens.replication.lab.teachers import Rows

Trained = tuple[Arm, float, str]
"""An optimizer at a learning rate, on the lists of a writer."""


@dataclass(frozen=True)
class ListStudents:
    """Students of each writer's lists; those of the first teacher's and of the untrained model's are traced.

    Args:
        traits: of the teachers, the one first by whom losses are matched.
        rows: the lists by writer.
        vectors: files of the teachers' vectors. Students of the untrained model's lists are compared with the first.
    """

    lab: Lab
    traits: tuple[str, ...]
    rows: Mapping[str, Rows]
    vectors: Mapping[str, Path]

    def train(self, asked: Sequence[Trained], seeds: tuple[int, ...]) -> list[compare.Students]:
        """One group for each that is asked.

        Raises:
            ValueError: a student of AdamW diverged, so that there is nothing to compare others with.
        """
        may_diverge = all(arm != ADAMW for arm, *_ in asked)
        found = self.lab.train({one: self._plan(*one) for one in asked}, seeds=seeds, may_diverge=may_diverge)
        return [found[one] for one in asked]

    def _plan(self, arm: Arm, rate: float, writer: str) -> sl.StudentPlan:
        first = self.traits[0]
        return self.lab.plan(
            f"{arm.name} {rate:.4g} {writer}",
            self.rows[writer],
            self.vectors[first if writer == UNTRAINED else writer],
            train=replace(self.lab.student, learning_rate=rate, **dict(arm.settings)),
            traced=writer in (first, UNTRAINED),
        )

    def match(
        self, arms: Sequence[Arm], loss: float, tolerance: float, budget: int
    ) -> tuple[dict[Arm, Curve], dict[Arm, Match]]:
        """Each arm's held-out losses by learning rate with the first seed, and its largest rate of this loss with all seeds.

        Args:
            budget: learning rates that the search may add to an arm's.
        """
        seeds, rates = self.lab.sizes.seeds, {arm: self.lab.rates(arm.family) for arm in arms}
        curves = search_rates(rates, lambda asked: self._losses(asked, seeds[:1]), loss, tolerance, budget)
        return curves, settle(curves, lambda asked: self._losses(asked, seeds), loss, tolerance)

    def _losses(self, asked: Sequence[tuple[Arm, float]], seeds: tuple[int, ...]) -> list[float]:
        groups = self.train([(*one, self.traits[0]) for one in asked], seeds) if asked else []
        return [math.inf if any(one.diverged for one in group) else compare.loss(group) for group in groups]
