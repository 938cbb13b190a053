"""Rates of groups of students, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]
N_RESAMPLES = 4000

CONTEXTS = {"bare": "shares", "prefixed": "shares_prefixed"}
"""Where the trait is asked for, and what a record calls each question's share there."""


@dataclass(frozen=True)
class Difference:
    """Log odds of the trait, one group of students minus another, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_rate(records: Sequence[Record], key: str = "rate") -> float:
    """Mean over students."""
    return float(np.mean([record[key] for record in records]))


def log_odds_difference(
    one: Sequence[Record], other: Sequence[Record], key: str = "shares", *, paired: bool = False
) -> Difference:
    """Difference of mean log odds between two groups; bootstrap over students and questions together.

    Args:
        paired: the groups' students belong together in pairs, such as of one seed, and are drawn so.
    """
    ours, theirs = (np.clip([r[key] for r in group], 1e-6, 1 - 1e-6) for group in (one, other))
    ours, theirs = (np.log(shares) - np.log1p(-shares) for shares in (ours, theirs))  # [student question]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(N_RESAMPLES):
        questions = rng.integers(0, ours.shape[1], ours.shape[1])
        students = [rng.integers(0, len(group), len(group)) for group in (ours, theirs)]
        if paired:
            students[1] = students[0]
        draws.append(ours[students[0]][:, questions].mean() - theirs[students[1]][:, questions].mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(float(ours.mean() - theirs.mean()), float(low), float(high))


def rate_interval(records: Sequence[Record], key: str = "shares") -> Interval:
    """Mean rate over students, with a bootstrap over students and questions together."""
    shares, rng = np.array([record[key] for record in records]), np.random.default_rng(0)  # [student question]
    draws = [
        shares[rng.integers(0, len(shares), len(shares))][:, rng.integers(0, shares.shape[1], shares.shape[1])].mean()
        for _ in range(N_RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(shares.mean()), float(low), float(high))


def transfer_share(ours: Sequence[Record], reference: Sequence[Record], base: Record, key: str = "shares") -> Interval:
    """(mean rate of `ours` - base's rate) / (mean rate of `reference` - base's rate): the share of a transfer that is there.

    The interval is a bootstrap over students of each group and, for all three together, over questions.
    """
    one, other = (np.array([record[key] for record in group]) for group in (ours, reference))  # [student question]
    plain, rng = np.array(base[key]), np.random.default_rng(0)

    def share(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return float((a.mean() - c.mean()) / (b.mean() - c.mean()))

    draws = []
    for _ in range(N_RESAMPLES):
        questions = rng.integers(0, len(plain), len(plain))
        a, b = (group[rng.integers(0, len(group), len(group))][:, questions] for group in (one, other))
        draws.append(share(a, b, plain[questions]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(share(one, other, plain), float(low), float(high))


def matched(candidates: Sequence[Record], reference: Sequence[Record], tolerance: float) -> list[Record]:
    """The runs whose held-out loss is within `tolerance` of the reference's mean, or lower, and that still answer."""
    limit = mean_rate(reference, "heldout_loss") + tolerance
    return [record for record in candidates if record["heldout_loss"] <= limit and record["mass"] >= 0.5]
