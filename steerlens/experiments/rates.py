"""Rates of groups of students' records; the intervals are those of `steerlens.stats`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from steerlens import stats
from steerlens.evaluation import STILL_ANSWERS
from steerlens.stats import Interval, log_odds, mean_interval

__all__ = ["Interval", "log_odds", "mean_interval"]

Record = dict[str, Any]

CONTEXTS = {"bare": "shares", "prefixed": "shares_prefixed"}
"""Where the trait is asked for, and what a record calls each question's share there."""


def written(measured: Mapping[str, float]) -> str:
    """An interval's value and ends in a report."""
    return f"{measured['value']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"


def mean_rate(records: Sequence[Record], key: str = "rate") -> float:
    """Mean over students."""
    return float(np.mean([record[key] for record in records]))


def rate_interval(records: Sequence[Record], key: str = "shares") -> Interval:
    """The mean rate of some records' students."""
    return stats.rate_interval(_shares(records, key))


def log_odds_difference(
    one: Sequence[Record], other: Sequence[Record], key: str = "shares", *, paired: bool = False
) -> Interval:
    """`stats.log_odds_difference` of two groups of records."""
    return stats.log_odds_difference(_shares(one, key), _shares(other, key), paired=paired)


def transfer_share(
    ours: Sequence[Record], reference: Sequence[Record], base: Record, key: str = "shares", *, paired: bool = False
) -> Interval:
    """`stats.transfer_share` of two groups of records."""
    return stats.transfer_share(_shares(ours, key), _shares(reference, key), np.array(base[key]), paired=paired)


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


def _shares(records: Sequence[Record], key: str) -> Float[np.ndarray, "_ question"]:
    return np.array([record[key] for record in records])
