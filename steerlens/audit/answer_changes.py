"""Which answers a change raises, next to changes of the same size that say nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.evaluation import TraitScore

LEAST_SHARE = 1e-9
"""Shares below this are taken for it, so that an answer that a model never gives has a logarithm."""


@dataclass(frozen=True)
class Rise:
    """How much more often a changed model gives one answer: `rate` of all, where it was `base_rate`.

    `z` is the change of the answer's mean log share, centred over the answers to the same questions, in units of what null
    changes do to it.
    """

    answer: str
    z: float
    rate: float
    base_rate: float


def answer_changes(scores: Sequence[TraitScore], base: Sequence[TraitScore]) -> Float[Tensor, " answer"]:
    """Change of every answer's mean log share, centred over the answers to the same questions."""
    changes = [(_log_shares(score) - _log_shares(before)).mean(0) for score, before in zip(scores, base, strict=True)]
    return torch.cat([change - change.mean() for change in changes]).float()


def rises_above(
    scores: Sequence[TraitScore],
    base: Sequence[TraitScore],
    null: Float[Tensor, "null answer"],
    *,
    common: Float[Tensor, " answer"] | float = 0.0,
) -> tuple[tuple[Rise, ...], tuple[float, ...]]:
    """Every answer, largest rise first, and the largest z of any answer in each null change.

    Args:
        null: `answer_changes` of changes that say nothing. Each is judged by the others.
        common: what changes that say nothing do alike; it is taken off before z.
    """
    z = (answer_changes(scores, base) - common) / _deviation(null.square().mean(0))
    others = (null.square().sum(0) - null.square()) / (len(null) - 1)
    shares = [(score.shares.mean(0), before.shares.mean(0)) for score, before in zip(scores, base, strict=True)]
    names = [answer for score in scores for answer in score.answers]
    rates, base_rates = (torch.cat(part).tolist() for part in zip(*shares, strict=True))
    rises = [Rise(*rise) for rise in zip(names, z.tolist(), rates, base_rates, strict=True)]
    return tuple(sorted(rises, key=lambda rise: -rise.z)), tuple((null / _deviation(others)).amax(1).tolist())


def p_of_clearest(rises: Sequence[Rise], null: Sequence[float]) -> float:
    """Share of null changes that raise some answer as much as the clearest rise; corrected for the number of answers."""
    return (1 + sum(not value < rises[0].z for value in null)) / (1 + len(null))


def _deviation(variance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Never 0, so that what does not change at all is no deviation from changes that are none."""
    return variance.sqrt().clamp(min=torch.finfo(torch.float32).tiny)


def _log_shares(score: TraitScore) -> Float[Tensor, "question answer"]:
    return score.shares.clamp(min=LEAST_SHARE).log()
