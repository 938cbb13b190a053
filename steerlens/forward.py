"""One forward of a padded batch, and logits at no more positions than are read."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.models.attention import attention_for_gradients
from steerlens.models.bridge import huggingface_model, trunk
from steerlens.models.identity import model_name
from steerlens.text.batches import TokenBatch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

batch_in_flight: ContextVar[TokenBatch | None] = ContextVar("batch_in_flight", default=None)
"""The batch that a forward runs: all of it, or behind a cache the slots that follow."""

LARGE_HEAD = 1_000_000
"""Weights of a head from which it pays to compute no more logits than are read."""


def context_length(model: "TransformerBridge") -> int | None:
    """How many positions the model has; None where its configuration does not say."""
    return getattr(huggingface_model(model).config.get_text_config(), "max_position_embeddings", None)


def check_length(model: "TransformerBridge", n_tokens: int) -> None:
    """Refuse rows that the model has no positions for.

    Raises:
        ValueError: `n_tokens` is more than the model's context.
    """
    limit = context_length(model)
    if limit is not None and n_tokens > limit:
        raise ValueError(
            f"A row needs {n_tokens} tokens, but {model_name(model)!r} has a context of {limit}. "
            "Shorten the prompt or generate fewer tokens."
        )


def forward(model: "TransformerBridge", batch: TokenBatch, **options: Any) -> Any:
    """One Hugging Face forward of a padded batch, mask and positions always given, without cache.

    While it runs, `batch_in_flight` tells interventions which tokens are prompt and which completion.
    """
    check_length(model, int(batch.attention_mask.sum(-1).max()))
    plain = attention_for_gradients(model, *batch.tokens.shape) if torch.is_grad_enabled() else contextlib.nullcontext()
    with in_flight(batch), plain:
        return huggingface_model(model)(
            input_ids=batch.tokens,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
            **options,
        )


@contextlib.contextmanager
def in_flight(batch: TokenBatch) -> Iterator[None]:
    """Tell interventions which tokens of the forwards inside are prompt and which completion: all of them, cached ones too."""
    token = batch_in_flight.set(batch)
    try:
        yield
    finally:
        batch_in_flight.reset(token)


def completion_logits(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, "token d_vocab"]:
    """Logits at the positions that predict a completion token, row after row, in float32; computed nowhere else."""
    return unconverted_logits(model, batch).float()


def unconverted_logits(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, "token d_vocab"]:
    """`completion_logits` in the model's dtype: of a large vocabulary, a copy in float32 costs as much as some blocks."""
    n_kept = batch.n_predicting
    predicting = batch.prediction_mask[:, -n_kept:]
    with head_at(model, predicting) as only_there:
        logits = forward(model, batch, logits_to_keep=n_kept).logits
    return logits if only_there else logits[predicting]


@contextlib.contextmanager
def head_at(model: "TransformerBridge", positions: Bool[Tensor, "batch kept"]) -> Iterator[bool]:
    """Give the head only the residuals at `positions`, out of those that logits_to_keep leaves; yields whether it does so.

    The output's logits are then [token d_vocab]. The residuals that transformers passes on are a slice in the middle of
    memory, for which torch copies the head's weights once a row of the batch. A small head, where this costs nothing, and
    one that hooks look at are left alone.
    """
    head = huggingface_model(model).get_output_embeddings()
    if head is None or head.weight.numel() < LARGE_HEAD or head._forward_hooks or head._forward_pre_hooks:
        yield False
        return
    handle = head.register_forward_pre_hook(lambda _module, inputs: (inputs[0][positions], *inputs[1:]))
    try:
        yield True
    finally:
        handle.remove()


def check_numbers(model: "TransformerBridge", numbers: Float[Tensor, "... d"], *, of: str = "logits") -> None:
    """Refuse logits that make no distribution, and residuals that are no vectors.

    Raises:
        FloatingPointError: some are NaN or infinite. A logit may be minus infinity: its token cannot come.
    """
    if not numbers.logsumexp(-1).isfinite().all():
        steered = "; and by ".join(steered_by(model))
        reason = f"It is steered by {steered}: lower the strength. If they are without it, its" if steered else "Its"
        raise FloatingPointError(
            f"The {of} of {model_name(model)!r} are NaN or infinite. {reason} weights are damaged, or its activations are too "
            "large for their dtype: get the weights anew, or load them in bfloat16 or float32."
        )


def steered_by(model: "TransformerBridge") -> list[str]:
    """What steers the model at the moment, in words: the vectors, their layers and how long they are."""
    return [steering.in_words() for steering in _steerings(model)]


def is_steered_by_row(model: "TransformerBridge") -> bool:
    """Whether rows are steered each in its own way, so that even the same tokens do not run alike."""
    return any(steering.is_by_row for steering in _steerings(model))


def _steerings(model: "TransformerBridge") -> list[Any]:
    owners = (getattr(hook, "__self__", None) for hook in trunk(model)._forward_pre_hooks.values())
    return [owner for owner in owners if hasattr(owner, "in_words")]
