"""Rates of groups of students, with intervals that hold for a few of them.

An interval is over students and questions: each source's half width is Student's t at its own degrees of freedom, and their
squares add up (Zou and Donner 2008, "MOVER"). A group of one counts as a fixed model, and says nothing of others like it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

from steerlens.evaluation import STILL_ANSWERS

Record = dict[str, Any]

CONTEXTS = {"bare": "shares", "prefixed": "shares_prefixed"}
"""Where the trait is asked for, and what a record calls each question's share there."""


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float


def written(measured: Mapping[str, float]) -> str:
    """An interval's value and ends in a report."""
    return f"{measured['value']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"


def mean_rate(records: Sequence[Record], key: str = "rate") -> float:
    """Mean over students."""
    return float(np.mean([record[key] for record in records]))


def log_odds(rates: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Of rates, which are kept 1e-6 away from 0 and 1."""
    kept = np.clip(rates, 1e-6, 1 - 1e-6)
    return np.log(kept) - np.log1p(-kept)


def mean_interval(values: Float[np.ndarray, " student"]) -> Interval:
    """The mean of one number a student."""
    half = _half_width([values])
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def rate_interval(records: Sequence[Record], key: str = "shares") -> Interval:
    """Mean rate; its interval is one of log odds, so that it stays between 0 and 1."""
    shares = _shares(records, key)
    rate = float(shares.mean())
    if rate in (0.0, 1.0):
        return Interval(rate, rate, rate)
    half = _half_width([shares.mean(1), shares.mean(0)]) / (rate * (1 - rate))
    odds = rate / (1 - rate) * np.exp([-half, half])
    low, high = odds / (1 + odds)
    return Interval(rate, float(low), float(high))


def log_odds_difference(
    one: Sequence[Record], other: Sequence[Record], key: str = "shares", *, paired: bool = False
) -> Interval:
    """Difference of mean log odds of the trait, one group of students minus another, at the same questions.

    Args:
        paired: the groups' students belong together in pairs, such as of one seed.
    """
    ours, theirs = (log_odds(_shares(group, key)) for group in (one, other))
    value = float(ours.mean() - theirs.mean())
    students = [(ours - theirs).mean(1)] if paired else [ours.mean(1), theirs.mean(1)]
    half = _half_width([*students, ours.mean(0) - theirs.mean(0)])
    return Interval(value, value - half, value + half)


def transfer_share(
    ours: Sequence[Record], reference: Sequence[Record], base: Record, key: str = "shares", *, paired: bool = False
) -> Interval:
    """(mean rate of `ours` - base's rate) / (mean rate of `reference` - base's rate): the share of a transfer that is there.

    The interval is Fieller's for a ratio of means. It has no ends where the reference's own transfer cannot be told from 0.

    Args:
        paired: the groups' students belong together in pairs, such as one student with and without an intervention.
    """
    one, other = (_shares(group, key) - np.array(base[key]) for group in (ours, reference))
    means = np.array([one.mean(), other.mean()])
    share = float(means[0] / means[1])
    spread = _spread(one.mean(0), other.mean(0))
    if paired:
        spread += _spread(one.mean(1), other.mean(1))
    else:
        spread += np.diag([_spread(group.mean(1), group.mean(1))[0, 0] for group in (one, other)])
    (c, b), (_, a) = np.outer(means, means) - spread
    if a <= 0:
        return Interval(share, -np.inf, np.inf)
    root = max(b * b - a * c, 0.0) ** 0.5
    return Interval(share, float((b - root) / a), float((b + root) / a))


def matched(
    groups: Mapping[float, Sequence[Record]], reference: Sequence[Record], tolerance: float
) -> dict[float, Sequence[Record]]:
    """The groups whose mean held-out loss is within `tolerance` of the reference's, or lower, and that still answer."""
    limit = mean_rate(reference, "heldout_loss") + tolerance
    return {
        name: group
        for name, group in groups.items()
        if mean_rate(group, "heldout_loss") <= limit and mean_rate(group, "mass") >= STILL_ANSWERS
    }


def _shares(records: Sequence[Record], key: str) -> Float[np.ndarray, "student question"]:
    return np.array([record[key] for record in records])


def _half_width(sources: Sequence[Float[np.ndarray, " _"]]) -> float:
    """Half of the interval of a sum of means, each of which varies by itself."""
    return float(sum(_spread(source, source)[0, 0] for source in sources) ** 0.5)


def _spread(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> Float[np.ndarray, "2 2"]:
    """Covariance of two means, times Student's t squared: half widths squared. One value alone does not vary."""
    n = len(one)
    return student_t.ppf(0.975, n - 1) ** 2 * np.cov(one, other) / n if n > 1 else np.zeros((2, 2))
