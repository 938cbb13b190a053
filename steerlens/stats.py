"""Intervals and p-values, in one place.

Two families. Where one model was measured on many questions or rows, intervals are bootstrapped over these (scipy). Where
there are a few students, the bootstrap is too narrow; their intervals are built from Student's t instead. There an interval
is over students and questions: the half width of each source of variation is Student's t at its own degrees of freedom, and
the squares of the half widths add up (Zou and Donner 2008, "MOVER"). One student alone does not vary, so its interval says
nothing about other students.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from steerlens.arguments import checked
from steerlens.checks import shown

N_RESAMPLES = 2000

Shares = Float[np.ndarray, "_ question"]
"""The share of the trait's answer, for every student and question."""


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval; the ends are NaN where one student alone gives none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text(2)

    def text(self, digits: int) -> str:
        """The value and its ends with so many digits."""
        if math.isnan(self.low) and math.isnan(self.high):
            return f"{self.value:.{digits}f} (no interval)"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@checked
def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: np.ndarray,
    paired: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic with its percentile bootstrap interval (`scipy.stats.bootstrap`).

    Args:
        statistic: of the samples; with a parameter `axis` it is called once for all resamples.
        paired: resample the samples together, as one set of observations.
        level: the probability that the interval covers.

    Returns:
        The statistic of the samples, and the ends. Resamples in which the statistic is not a number are left out. A single
        observation has an interval of length 0.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    if not samples or not all(np.ndim(sample) and len(sample) for sample in samples):
        raise ValueError(f"Got {shown(samples)} for samples. Give at least one array, each of at least one value.")
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Interval(value, value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # not-a-number draws, which are left out below
        draws = bootstrap(
            samples, statistic, n_resamples=N_RESAMPLES, paired=paired, method="percentile",
            rng=np.random.default_rng(seed), batch=max(1, 2**22 // max(map(len, samples))),
        ).bootstrap_distribution  # fmt: skip
    if np.isnan(draws).all():
        return Interval(value, float("nan"), float("nan"))
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def mean_difference(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> Any:
    """The difference of two means, as a statistic."""
    return ours.mean(axis) - theirs.mean(axis)


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray, axis: int = -1) -> Any:
    """One sum over another, as a statistic."""
    return numerator.sum(axis) / denominator.sum(axis)


@checked
def permutation_p(ours: Float[np.ndarray, " n"], theirs: Float[np.ndarray, " m"], *, seed: int = 0) -> float:
    """One-sided p-value of a difference of means when the labels are permuted (`scipy.stats.permutation_test`)."""
    from scipy.stats import permutation_test

    test = permutation_test(
        (ours, theirs), mean_difference, n_resamples=N_RESAMPLES, alternative="greater", rng=np.random.default_rng(seed)
    )
    return float(test.pvalue)


def swap_p(differences: Float[np.ndarray, "question answer"], *, seed: int = 0) -> float:
    """P-value of sum |sum over questions|, when the two models of any question could be swapped.

    Args:
        differences: one model's distribution over answers minus the other's.
    """
    observed = np.abs(differences.sum(0)).sum()
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (N_RESAMPLES, len(differences)))
    permuted = np.abs(signs @ differences).sum(-1)
    return float((1 + (permuted >= observed - 1e-12).sum()) / (1 + N_RESAMPLES))


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    others = np.sort(negative)
    below = np.searchsorted(others, positive, "left") + np.searchsorted(others, positive, "right")
    return float(below.mean() / (2 * len(others)))


@checked
def concordance(scores: Float[np.ndarray, " n"], outcomes: Float[np.ndarray, " n"]) -> float:
    """Of all pairs with different outcomes, the share in which the higher score has the higher outcome; ties count half.

    Where outcomes are 0 or 1 this is the area under the ROC curve. NaN where all outcomes are the same.
    """
    order = np.sign(outcomes[:, None] - outcomes)
    agreement = np.sign(scores[:, None] - scores) * order
    return float((1 + agreement[order != 0]).mean() / 2) if order.any() else float("nan")


@checked
def correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"], *, ranks: bool = False) -> float:
    """Pearson's correlation, or Spearman's of the ranks; NaN where either does not vary, or there are fewer than 3 values."""
    from scipy.stats import pearsonr, spearmanr

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of input that hardly varies
        return float((spearmanr if ranks else pearsonr)(one, other)[0])  # pyright: ignore[reportArgumentType]


@checked
def brier(probabilities: Float[np.ndarray, " n"], happened: Shaped[np.ndarray, " n"]) -> float:
    """Mean squared distance of probabilities from what happened: 0 is certain and right, 0.25 is a coin's."""
    return float(((probabilities - happened) ** 2).mean())


@checked
def log_odds(rates: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Log odds of rates, which are kept 1e-6 away from 0 and 1."""
    kept = np.clip(rates, 1e-6, 1 - 1e-6)
    return np.log(kept) - np.log1p(-kept)


@checked
def mean_interval(values: Float[np.ndarray, " student"]) -> Interval:
    """The mean of one number a student; a single student has no interval."""
    half = _half_width([values]) if len(values) > 1 else float("nan")
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


@checked
def rate_interval(shares: Shares) -> Interval:
    """The mean rate. Its interval is computed from log odds, so that it stays between 0 and 1."""
    rate = float(shares.mean())
    if rate in (0.0, 1.0):
        return Interval(rate, rate, rate)
    half = _half_width([shares.mean(1), shares.mean(0)]) / (rate * (1 - rate))
    odds = rate / (1 - rate) * np.exp([-half, half])
    low, high = odds / (1 + odds)
    return Interval(rate, float(low), float(high))


@checked
def log_odds_difference(ours: Shares, theirs: Shares, *, paired: bool = False) -> Interval:
    """Mean log odds of one group of students minus those of another, at the same questions.

    Args:
        paired: the groups' students belong together in pairs, such as students of one seed.
    """
    one, other = log_odds(ours), log_odds(theirs)
    value = float(one.mean() - other.mean())
    students = [(one - other).mean(1)] if paired else [one.mean(1), other.mean(1)]
    half = _half_width([*students, one.mean(0) - other.mean(0)])
    return Interval(value, value - half, value + half)


@checked
def transfer_share(
    ours: Shares, reference: Shares, base: Float[np.ndarray, " question"], *, paired: bool = False
) -> Interval:
    """(mean of `ours` - mean of `base`) / (mean of `reference` - mean of `base`): how much of a transfer is there.

    The interval is Fieller's for a ratio of means. It has no ends where the reference's own transfer cannot be told from 0.

    Args:
        paired: the groups' students belong together in pairs, such as one student with and without an intervention.
    """
    one, other = ours - base, reference - base
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


def _half_width(sources: Sequence[Float[np.ndarray, " _"]]) -> float:
    """Half of the interval of a sum of means, each of which varies by itself."""
    return float(sum(_spread(source, source)[0, 0] for source in sources) ** 0.5)


def _spread(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> Float[np.ndarray, "2 2"]:
    """Covariance of two means, times Student's t squared: half widths squared. One value alone does not vary."""
    from scipy.stats import t as student_t

    n = len(one)
    return student_t.ppf(0.975, n - 1) ** 2 * np.cov(one, other) / n if n > 1 else np.zeros((2, 2))
