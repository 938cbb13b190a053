"""At which learning rate does each optimizer reach a given held-out loss? The search alone; training is a function."""

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Curve = dict[float, float]
"""Held-out loss by learning rate; infinite where the run diverged."""

K = TypeVar("K", bound=Hashable)
Measure = Callable[[Sequence[tuple[K, float]]], Sequence[float]]
"""Trains every (optimizer, learning rate) that it is given, and returns their losses."""

BEYOND = 4.0
"""How many times a rate beyond the end of a curve is smaller, or larger."""


@dataclass(frozen=True)
class Match:
    """The learning rate at which an optimizer is compared, and whether its loss is the reference's there.

    Without a match it is the rate whose loss is closest; the rate is None where every run diverged.
    """

    rate: float | None
    loss: float
    matched: bool


def search_rates(
    grids: Mapping[K, Sequence[float]], measure: Measure[K], reference: float, tolerance: float, budget: int
) -> dict[K, Curve]:
    """Each optimizer's curve over its grid, refined with up to `budget` more rates until one matches the reference.

    All optimizers' next rates are measured together, so that they can be trained side by side.
    """
    curves: dict[K, Curve] = {name: {} for name in grids}
    asked = [(name, rate) for name, grid in grids.items() for rate in grid]
    for _ in range(budget + 1):
        for (name, rate), loss in zip(asked, measure(asked), strict=True):
            curves[name][rate] = loss
        nexts = {name: next_rate(curve, reference, tolerance) for name, curve in curves.items()}
        asked = [(name, rate) for name, rate in nexts.items() if rate is not None]
        if not asked:
            break
    return curves


def next_rate(curve: Curve, reference: float, tolerance: float) -> float | None:
    """The rate to try next, or None where one matches already.

    Between neighbouring rates on both sides of the reference: their geometric mean, where there are several such pairs
    that of the largest rates. On a curve below the reference a smaller rate: training at rate 0 leaves the base's loss,
    which is above. On a curve above it: beyond the end where it is lowest, or beside its lowest point in the wider gap.
    """
    if matching_rates(curve, reference, tolerance):
        return None
    rates = sorted(curve)
    for low, high in reversed(list(itertools.pairwise(rates))):
        if (curve[low] < reference) != (curve[high] < reference):
            return math.sqrt(low * high)
    lowest = min(rates, key=lambda rate: curve[rate])
    index = rates.index(lowest)
    if index == 0 or curve[lowest] < reference:
        return rates[0] / BEYOND
    if lowest == rates[-1]:
        return lowest * BEYOND
    below, above = rates[index - 1], rates[index + 1]
    return math.sqrt(lowest * (below if lowest / below > above / lowest else above))


def matching_rates(curve: Curve, reference: float, tolerance: float) -> list[float]:
    """The rates whose loss is within `tolerance` of the reference, largest first.

    A largest rate that reaches the loss has moved the student farthest; the choice does not look at any trait.
    """
    return sorted((rate for rate, loss in curve.items() if abs(loss - reference) <= tolerance), reverse=True)


def closest(curve: Curve, reference: float) -> Match:
    """What is left to show where no rate matches."""
    rate = min(curve, key=lambda rate: abs(curve[rate] - reference))
    return Match(None if math.isinf(curve[rate]) else rate, curve[rate], False)


def settle(curves: Mapping[K, Curve], measure: Measure[K], reference: float, tolerance: float) -> dict[K, Match]:
    """Each optimizer's largest rate that matches over all seeds, where the curves are those of a few seeds.

    Args:
        measure: the mean loss over all seeds, infinite where one of them diverged.
    """
    open_rates = {name: matching_rates(curve, reference, tolerance) for name, curve in curves.items()}
    found = {name: closest(curve, reference) for name, curve in curves.items()}
    while asked := [(name, rates.pop(0)) for name, rates in open_rates.items() if rates and not found[name].matched]:
        for (name, rate), loss in zip(asked, measure(asked), strict=True):
            if abs(loss - reference) <= tolerance:
                found[name] = Match(rate, loss, True)
    return found
