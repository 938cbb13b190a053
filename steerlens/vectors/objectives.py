"""What a fit minimises: the distance, at each completion token, of the steered model from the prompted one.

p is the prompted model's next-token distribution, q the steered model's, y the token that was sampled. Where
only the likeliest tokens of p are kept, both distributions are coarsened alike: the kept tokens, and one
bucket for all others. A KL of coarsened distributions is never larger than the full one (data processing).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.vectors.config import Objective

WHOLE_VOCABULARY = 8192
"""Vocabularies of up to so many tokens are never coarsened."""


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
    """KL(p || q) where q, and its gradient, are coarsened as p is: few passes over the vocabulary, which is most of their cost.

    The gradient along a logit is q_i - p_i at a kept token, and q_i (1 - p_rest / q_rest) at any other.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, log_p: Tensor, kept: Tensor) -> Tensor:
        """The loss at each token."""
        q = logits.softmax(-1)
        q_kept, tiny = q.gather(-1, kept), torch.finfo(q.dtype).tiny
        q.scatter_(-1, kept, 0.0)
        q_rest = q.sum(-1, keepdim=True).clamp(min=tiny)
        kept_logits, top = logits.gather(-1, kept), q_kept.argmax(-1, keepdim=True)
        log_sum = kept_logits.gather(-1, top) - q_kept.gather(-1, top).clamp(min=tiny).log()
        log_q = torch.cat([kept_logits - log_sum, q_rest.log()], dim=-1)
        p = log_p.exp()
        ctx.save_for_backward(q, q_kept, q_rest, p, kept)
        return (p * (log_p - log_q)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient along the logits."""
        q, q_kept, q_rest, p, kept = ctx.saved_tensors
        of_loss = gradients[0][:, None]
        along = q * (of_loss * (1 - p[:, -1:] / q_rest))
        return along.scatter_(-1, kept, of_loss * (q_kept - p[:, :-1])), None, None


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
    if objective == "cross_entropy":
        if targets.among is None:
            return -token_log_probs(logits, targets.sampled)
        return -token_log_probs(logits[:, targets.among], positions_among(targets.sampled, targets.among))
    if objective == "forward_kl" and targets.kept is not None:
        return _CoarsenedKL.apply(logits, targets.log_probs, targets.kept)
    target, prediction = targets.log_probs, targets.of_prediction(logits)
    if objective == "forward_kl":
        return (target.exp() * (target - prediction)).sum(-1)
    if objective == "reverse_kl":
        return (prediction.exp() * (prediction - target)).sum(-1)
    difference = target - prediction
    return (difference - difference.mean(-1, keepdim=True)).square().mean(-1)
