"""How well one number told another beforehand, and how sure that is over the prompts at hand."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from steerlens.experiments.rates import Interval

Column = Float[np.ndarray, " prompt"]
N_RESAMPLES = 2000


def concordance(scores: Column, outcomes: Column) -> float:
    """Of all pairs with different outcomes, the share in which the higher score has the higher outcome; ties count half.

    Where outcomes are 0 or 1 this is the area under the ROC curve. NaN where they are all the same.
    """
    order = np.sign(outcomes[:, None] - outcomes)
    agreement = np.sign(scores[:, None] - scores) * order
    return float((1 + agreement[order != 0]).mean() / 2) if order.any() else float("nan")


def pearson(scores: Column, outcomes: Column) -> float:
    """Linear correlation; NaN where either does not vary."""
    if scores.std() == 0 or outcomes.std() == 0:
        return float("nan")
    return float(np.corrcoef(scores, outcomes)[0, 1])


def spearman(scores: Column, outcomes: Column) -> float:
    """Correlation of the ranks; equal values share their mean rank."""
    return pearson(rankdata(scores), rankdata(outcomes))


def over_prompts(statistic: Callable[[Column, Column], float], scores: Column, outcomes: Column) -> Interval:
    """A statistic and its 95 % bootstrap interval over prompts; draws in which it is not defined are left out."""
    rng, n = np.random.default_rng(0), len(scores)
    draws = [statistic(scores[rows], outcomes[rows]) for rows in rng.integers(0, n, (N_RESAMPLES, n))]
    defined = [draw for draw in draws if not np.isnan(draw)]
    low, high = np.quantile(defined, [0.025, 0.975]) if defined else (float("nan"), float("nan"))
    return Interval(statistic(scores, outcomes), float(low), float(high))


def left_out_shares(labels: Sequence[str], happened: Bool[np.ndarray, " prompt"], groups: Sequence[str]) -> Column:
    """For every prompt, how often it happened with its label among the prompts of all other groups, as a probability.

    One prompt of either kind is added (Laplace's rule), so that a label which the others do not have gives a half.
    """
    named, grouped = np.array(labels), np.array(groups)
    others = (named[:, None] == named) & (grouped[:, None] != grouped)
    return (1 + (others & happened).sum(1)) / (2 + others.sum(1))


def brier(probabilities: Column, happened: Bool[np.ndarray, " prompt"]) -> float:
    """Mean squared distance of probabilities from what happened: 0 is certain and right, 0.25 is a coin's."""
    return float(((probabilities - happened) ** 2).mean())
