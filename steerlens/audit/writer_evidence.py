"""What log-likelihood ratios say about who wrote some rows.

L_c is a row's log-likelihood ratio under prompt c to the model without a prompt, and S_c its sum over rows.

- Of the model's own rows exp(S_c) is 1 on average, so that its mean over candidates is 1 / p or more in a share p of all data
  sets at most (an e-value: Vovk and Wang, arXiv 1912.06116).
- If each candidate is as likely beforehand, candidate c wrote the rows with a probability in proportion to exp(S_c).

Filtered rows would mislead: of pure number lists, L_c is negative on average even under the very prompt that wrote them, where
the prompt makes the model write fewer lists. So each such row is paired with a clean one, by the model itself in the same
format, and L_c of a row becomes log 2 sigmoid(L_c(row) - L_c(clean)): by how much c tells better than a coin which of the two is
the row. A filter changes both alike, and exp of the sum over pairs is 1 on average as before.

Often only a share w of the rows has a persona. A row is then 1 - w + w exp(L_c) times as likely as under the model, and where it
is paired, it is told from its clean one by that. This is asked of several shares, and exp(S_c) is its mean over them, so that it
is 1 on average as before. A row was written under c with the chance w exp(L_c) / (1 - w + w exp(L_c)), and counts as so much
where rows are compared with c's own answers.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from steerlens.audit.prompt_ratios import Ratios

SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Of the rows that a candidate may have written."""

ALL_BEFOREHAND = 0.8
"""Chance of the first share before the rows are seen; the others have the rest in equal parts."""

OUTER = 0.25
"""Share of rows at either end that is left out of a mean lead."""


def evidence(ours: Ratios, theirs: Ratios | None) -> Float[Tensor, "share candidate"]:
    """How much all rows say for each candidate as the writer of each share, in nats, with the share's chance beforehand.

    exp of it, summed over shares, is 1 on average for rows of the model's own.
    """
    chances_beforehand = [ALL_BEFOREHAND, *[(1 - ALL_BEFOREHAND) / (len(SHARES) - 1)] * (len(SHARES) - 1)]
    said = [_row_evidence(ours, theirs, share).sum(0) for share in SHARES]
    return torch.stack(said) + torch.tensor(chances_beforehand).log()[:, None]


def _row_evidence(ours: Ratios, theirs: Ratios | None, share: float) -> Float[Tensor, "row candidate"]:
    offset = _offset(ours, theirs)
    mixed = _mixed(ours, offset, share)
    return mixed if theirs is None else math.log(2) + logsigmoid(mixed - _mixed(theirs, offset, share))


def _mixed(ratios: Ratios, offset: Float[Tensor, " candidate"], share: float) -> Ratios:
    """log(1 - w + w exp(L)) of every row."""
    written = ratios.double() + offset + math.log(share)
    return written if share == 1 else torch.logaddexp(written, torch.tensor(math.log1p(-share)))


def _offset(ours: Ratios, theirs: Ratios | None) -> Float[Tensor, " candidate"]:
    """What makes exp(L) of clean rows 1 on average, where a filter keeps rows more seldom under a candidate than without.

    Of a pair, the less likely row stands for the clean one, which changes nothing where the two are swapped.
    """
    if theirs is None:
        return torch.zeros(ours.shape[1])
    return math.log(len(ours)) - torch.minimum(ours, theirs).double().logsumexp(0)


def responsibilities(ours: Ratios, theirs: Ratios | None, share: float) -> Ratios:
    """The chance that each row was written under each candidate, if it wrote a share of them, and the model the rest."""
    offset = _offset(ours, theirs)
    return (ours.double() + offset + math.log(share) - _mixed(ours, offset, share)).exp()


def chances(sums: Float[Tensor, " candidate"]) -> tuple[float, float]:
    """A bound on the p-value of "the model itself wrote the rows", and the probability that not the best candidate did."""
    every = sums.logsumexp(0)
    return min(1.0, float(len(sums) * torch.exp(-every))), float(1 - torch.exp(sums.max() - every))


def relative_lead(rows: Ratios, own: Float[Tensor, "answer candidate"], weights: Float[Tensor, " row"]) -> float:
    """The first candidate's lead over the others in rows, in units of that in its own answers; 0 where it has none there.

    Means are over the middle half, so that answers that name a trait do not count: the maker of the rows may have dropped these.
    """
    leads = [(ratios[:, 0] - ratios[:, 1:].mean(1)).double() for ratios in (rows, own)]
    in_rows, in_own = map(_middle_mean, leads, (weights, torch.ones(len(own))))
    return in_rows / in_own if in_own > 0 else 0.0


def _middle_mean(values: Float[Tensor, " row"], weights: Float[Tensor, " row"]) -> float:
    """Without the share `OUTER` of the weight at either end."""
    order = values.argsort()
    until = weights[order].double().cumsum(0) / weights.sum()
    inside = until.clamp(OUTER, 1 - OUTER).diff(prepend=torch.tensor([OUTER]))
    return float(inside @ values[order] / (1 - 2 * OUTER))
