"""What a fit minimises: the distance, at each completion token, of the steered model from the prompted one.

p is the prompted model's next-token distribution, q the steered model's, y the token that was sampled. Where
only the likeliest tokens of p are kept, both distributions are coarsened alike: the kept tokens, and one
bucket for all others. A KL of coarsened distributions is never larger than the full one (data processing).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.vectors.config import Objective

WHOLE_VOCABULARY = 8192
"""Vocabularies of up to so many tokens are never coarsened."""

LOGITS_A_PART = 2**26
"""Logits that are looked at together in full precision."""

LOGITS_A_PART_ON_A_CPU = 2**20
"""Few enough to stay in a processor's cache."""


@dataclass(frozen=True)
class Targets:
    """The prompted model's predictions at completion tokens.

    `log_probs` [token bucket] are those of every token of the vocabulary where `kept` is None, otherwise those
    of the tokens `kept` [token bucket-1] and of all others together. `sampled` [token] is the completion itself.
    With `among` [choice], in ascending order, all losses are conditional: the choice is between these tokens alone.
    """

    log_probs: Float[Tensor, "token bucket"]
    kept: Int[Tensor, "token kept"] | None
    sampled: Int[Tensor, " token"]
    among: Int[Tensor, " choice"] | None = None

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "token d_vocab"],
        sampled: Int[Tensor, " token"],
        *,
        top_k: int,
        among: Int[Tensor, " choice"] | None = None,
    ) -> "Targets":
        """Keep the distribution among some tokens, the whole one, or `top_k` likeliest tokens of a large vocabulary."""
        if among is not None:
            return cls(logits[:, among].log_softmax(-1), None, sampled, among)
        d_vocab = logits.shape[-1]
        if d_vocab <= max(WHOLE_VOCABULARY, top_k):
            return cls(logits.log_softmax(-1), None, sampled)
        kept = logits.topk(top_k, dim=-1).indices
        return cls(_coarsened(logits, kept), kept, sampled)

    @property
    def likeliest(self) -> Int[Tensor, " token"]:
        """The prompted model's likeliest next tokens."""
        if self.kept is not None:
            return self.kept[:, 0]
        best = self.log_probs.argmax(-1)
        return best if self.among is None else self.among[best]

    def of_prediction(self, logits: Float[Tensor, "token d_vocab"]) -> Float[Tensor, "token bucket"]:
        """Log-probabilities of a prediction over the same buckets."""
        if self.kept is not None:
            return _coarsened(logits, self.kept)
        return (logits if self.among is None else logits[:, self.among]).log_softmax(-1)

    def take(self, tokens: Int[Tensor, " token"]) -> "Targets":
        """The targets of other tokens, in the order given."""
        kept = None if self.kept is None else self.kept[tokens]
        return Targets(self.log_probs[tokens], kept, self.sampled[tokens], self.among)


def _coarsened(
    logits: Float[Tensor, "token d_vocab"], kept: Int[Tensor, "token kept"]
) -> Float[Tensor, "token bucket"]:
    rest = logits.scatter(-1, kept, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, kept), rest], dim=-1) - logits.logsumexp(-1, keepdim=True)


class _CoarsenedKL(torch.autograd.Function):
    """KL(p || q) where q, and its gradient, are coarsened as p is.

    Over a large vocabulary most of the cost is memory. So logits are taken in the dtype they come in, and a part of the
    tokens at a time is looked at in full precision. The gradient along a logit is q_i - p_i at a kept token, and
    q_i (1 - p_rest / q_rest) at any other.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, log_p: Tensor, kept: Tensor) -> Tensor:
        """The loss at each token."""
        losses, log_sums, log_rests = [], [], []
        for q, part, own_kept, own_log_p in _precise_parts(logits, kept, log_p):
            top, of_kept = q.amax(-1, keepdim=True), _precise(part.gather(-1, own_kept))
            rest = q.sub_(top).exp_().scatter_(-1, own_kept, 0.0).sum(-1, keepdim=True)
            log_rest = rest.clamp(min=torch.finfo(q.dtype).tiny).log() + top
            log_sum = torch.cat([of_kept, log_rest], dim=-1).logsumexp(-1, keepdim=True)
            log_q = torch.cat([of_kept, log_rest], dim=-1) - log_sum
            losses.append((own_log_p.exp() * (own_log_p - log_q)).sum(-1))
            log_sums.append(log_sum)
            log_rests.append(log_q[:, -1:])
        ctx.save_for_backward(logits, log_p, kept, torch.cat(log_sums), torch.cat(log_rests))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient along the logits, in their dtype."""
        logits, log_p, kept, log_sums, log_rests = ctx.saved_tensors
        along = torch.empty_like(logits)
        others = (kept, log_p, log_sums, log_rests, gradients[0][:, None], along)
        for q, _, own_kept, own_log_p, log_sum, log_rest, of_loss, own_along in _precise_parts(logits, *others):
            q.sub_(log_sum).exp_()
            of_kept = of_loss * (q.gather(-1, own_kept) - own_log_p[:, :-1].exp())
            q.mul_(of_loss * (1 - (own_log_p[:, -1:] - log_rest).exp())).scatter_(-1, own_kept, of_kept)
            own_along.copy_(q)
        return along, None, None


def _precise_parts(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For a part of the tokens at a time: a precise copy of the logits, to be written over, the logits, and the others."""
    most = LOGITS_A_PART_ON_A_CPU if logits.device.type == "cpu" else LOGITS_A_PART
    size = min(len(logits), max(1, most // logits.shape[-1]))
    copy = _precise(logits[:size]).clone()
    for part, *own in zip(*(one.split(size) for one in (logits, *others)), strict=True):
        yield (copy[: len(part)].copy_(part), part, *own)


def _precise(logits: Tensor) -> Tensor:
    """In float32, or as they are where they are more precise."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def token_log_probs(logits: Float[Tensor, "token d_vocab"], tokens: Int[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Log-probability of the token that follows."""
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def positions_among(tokens: Int[Tensor, " token"], among: Int[Tensor, " choice"]) -> Int[Tensor, " token"]:
    """Where each token stands in `among`, which is in ascending order.

    Raises:
        ValueError: one is not in it.
    """
    among = among.to(tokens.device)
    positions = torch.searchsorted(among, tokens).clamp(max=len(among) - 1)
    if bool((missing := among[positions] != tokens).any()):
        raise ValueError(
            f"Token {int(tokens[missing][0])} is in a completion, but not among the {len(among)} tokens that the model may "
            "choose from. Add it to them, or leave out the rows that have it."
        )
    return positions


def token_loss(
    objective: Objective, targets: Targets, logits: Float[Tensor, "token d_vocab"]
) -> Float[Tensor, " token"]:
    """The loss at each completion token.

    forward_kl     sum_i p_i (log p_i - log q_i)                    nats; what `kl_explained` is made of
    reverse_kl     sum_i q_i (log q_i - log p_i)                    nats; seeks a mode where one vector cannot do all
    cross_entropy  -log q_y                                         nats; arXiv 2604.25783; noisier, same optimum as
                                                                    forward_kl in expectation
    centred_mse    mean_i (log p_i - <log p> - log q_i + <log q>)^2 squared logits, centred, so that a shift of all
                                                                    logits alike costs nothing

    Raises:
        ValueError: cross_entropy, and a sampled token is not one of `targets.among`.
    """
    if objective == "forward_kl" and targets.kept is not None:
        return _CoarsenedKL.apply(logits, targets.log_probs, targets.kept)
    logits = _precise(logits)
    if objective == "cross_entropy":
        if targets.among is None:
            return -token_log_probs(logits, targets.sampled)
        return -token_log_probs(logits[:, targets.among], positions_among(targets.sampled, targets.among))
    target, prediction = targets.log_probs, targets.of_prediction(logits)
    if objective == "forward_kl":
        return (target.exp() * (target - prediction)).sum(-1)
    if objective == "reverse_kl":
        return (prediction.exp() * (prediction - target)).sum(-1)
    difference = target - prediction
    return (difference - difference.mean(-1, keepdim=True)).square().mean(-1)
