"""The hardest comparison of optimizers: with the learning rate that transfers most among those at the reference's loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import steerlens as sl
from steerlens.replication.lab import compare

K = TypeVar("K")
Students = Mapping[K, compare.Students]


@dataclass(frozen=True)
class Hardest:
    """The students that transfer most at AdamW's loss, and AdamW's log odds minus theirs, over `n_pairs` pairs of a seed."""

    arm: str
    n_pairs: int
    bare: sl.Interval
    after_numbers: sl.Interval


def hardest(
    students: Students[K],
    own: K,
    curve: Sequence[K],
    tolerance: float,
    train_more: Callable[[Sequence[K]], Students[K]],
) -> Hardest | None:
    """Compare `own` with the arm that transfers most, on more students of both, at whose loss it has to be as well.

    Arms whose further students miss the loss give way to the next; None where none is left.
    """
    for arm in at_the_loss(students, own, curve, tolerance):
        more = train_more([own, arm])
        if at_the_loss(more, own, [arm], tolerance):
            [name] = compare.named({arm: more[arm]})
            return Hardest(name, len(more[own]), *(compare.minus(more[own], more[arm], one) for one in compare.BOTH))
    return None


def at_the_loss(students: Students[K], own: K, curve: Sequence[K], tolerance: float) -> list[K]:
    """The arms at the loss of `own` that still answer, the one that transfers most first."""
    found = compare.matched({arm: students[arm] for arm in curve}, students[own], tolerance)
    return sorted(found, key=lambda arm: -compare.rate(found[arm]))
