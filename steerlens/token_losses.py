"""The loss of every completion token, with a bounded number of logits in memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from steerlens.forward import completion_logits, forward
from steerlens.models.bridge import huggingface_model
from steerlens.models.replaced import forwards_replaced
from steerlens.text.batches import TokenBatch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LOGITS_AT_ONCE = 2**24
"""Tokens times vocabulary up to which logits are computed together: 64 MB in float32, and twice as much for gradients."""

Hidden = Float[Tensor, "token d_model"]
Losses = Float[Tensor, " token"]
LogitsOf = Callable[[Hidden], Float[Tensor, "token d_vocab"]]


def token_losses(model: "TransformerBridge", batch: TokenBatch) -> Losses:
    """-log q(y_t | x, y_<t) of every completion token, row after row, in nats.

    Where tokens times vocabulary exceed `LOGITS_AT_ONCE`, logits are made for some tokens after the others, each time with
    their gradient, and forgotten again. Where the head itself is trained, or cannot be found, all logits are made together.
    """
    hf, targets = huggingface_model(model), batch.tokens[batch.completion_mask]
    size = LOGITS_AT_ONCE // hf.config.get_text_config().vocab_size
    head = hf.get_output_embeddings()
    frozen_head = head is not None and not any(parameter.requires_grad for parameter in head.parameters())
    if len(targets) <= size or not frozen_head:
        return cross_entropy(completion_logits(model, batch), targets, reduction="none")
    hidden, logits_of = _before_head(model, batch)
    return _LossesInParts.apply(hidden, targets, logits_of, max(1, size))  # pyright: ignore[reportReturnType]


def _before_head(model: "TransformerBridge", batch: TokenBatch) -> tuple[Hidden, LogitsOf]:
    """What the head reads at the positions that predict a completion token, and the map from there to logits.

    The map is the model's own forward on what its blocks gave, so that it holds what an architecture does around its head
    (scales, soft caps).
    """
    hf: Any = huggingface_model(model)
    base, head, seen = hf.base_model, hf.get_output_embeddings(), []
    run_base = base.forward

    def keep(*args: Any, **kwargs: Any) -> Any:
        seen.append(run_base(*args, **kwargs))
        return seen[0]

    with forwards_replaced({base: keep, head: lambda hidden: hidden[..., :1]}):
        forward(model, batch, logits_to_keep=1)

    def logits_of(hidden: Hidden) -> Float[Tensor, "token d_vocab"]:
        given = type(seen[0])(**{**seen[0], "last_hidden_state": hidden[None]})
        with forwards_replaced({base: lambda *_args, **_kwargs: given}):
            return hf.forward(input_ids=batch.tokens.new_zeros(1, len(hidden)), use_cache=False).logits[0]

    return seen[0].last_hidden_state[batch.prediction_mask], logits_of


class _LossesInParts(torch.autograd.Function):
    """Cross-entropies, whose gradients with respect to the head's inputs are computed with them, part by part."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Hidden, targets: Int[Tensor, " token"], logits_of: LogitsOf, size: int
    ) -> Losses:
        losses, gradients = [], []
        for part, wanted in zip(hidden.split(size), targets.split(size), strict=True):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                leaf = part.detach().requires_grad_(ctx.needs_input_grad[0])
                loss = cross_entropy(logits_of(leaf).float(), wanted, reduction="none")
                if ctx.needs_input_grad[0]:
                    gradients += torch.autograd.grad(loss.sum(), leaf)
            losses.append(loss.detach())
        ctx.save_for_backward(*gradients)
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *weights: Losses) -> tuple[Hidden, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradients = torch.cat(ctx.saved_tensors)
        return gradients * weights[0].to(gradients)[:, None], None, None, None
