"""The attention that is quickest to differentiate."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.memory import free_bytes
from steerlens.models.bridge import huggingface_model, parameters_device

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BYTES_A_WEIGHT = 10
"""What transformers' eager attention keeps of each attention weight until its gradient is there, in half precision.

That is the most: our own products keep two bytes.
"""

PRODUCTS = "steerlens_products"
"""The name under which transformers knows `_attend`."""

NOT_IN_SCORES = ("position_ids", "cache_position", "use_cache", "sliding_window")
"""What models tell their attention beyond arguments and mask, which changes nothing here. Caps and sinks would."""

SHARE_OF_FREE = 0.25


@contextlib.contextmanager
def attention_for_gradients(model: "TransformerBridge", n_rows: int, n_tokens: int) -> Iterator[None]:
    """Run attention as plain matrix products inside, where that is quicker to differentiate and fits into memory.

    Torch's fused attention takes several times as long as plain products, forward and backward, in bfloat16 on a CPU, and
    is less exact. Plain products keep rows x heads x tokens^2 weights a layer, for `n_rows` rows of at most `n_tokens` tokens.
    Inside another one, it changes nothing.
    """
    config = huggingface_model(model).config.get_text_config()
    if not (_is_slow(model) and _bytes(config, n_rows, n_tokens) < SHARE_OF_FREE * free_bytes(torch.device("cpu"))):
        yield
        return
    config._attn_implementation = _products(model)
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def _is_slow(model: "TransformerBridge") -> bool:
    hf, on_cpu = huggingface_model(model), parameters_device(model).type == "cpu"
    return on_cpu and hf.dtype == torch.bfloat16 and hf.config.get_text_config()._attn_implementation == "sdpa"


def _bytes(config: object, n_rows: int, n_tokens: int) -> int:
    weights = config.num_hidden_layers * config.num_attention_heads * n_tokens**2  # pyright: ignore[reportAttributeAccessIssue]
    return BYTES_A_WEIGHT * n_rows * weights


def _products(model: "TransformerBridge") -> str:
    """The name of our own products, or of transformers' where the model's code takes no other."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(PRODUCTS, _attend)
    AttentionMaskInterface.register(PRODUCTS, eager_mask)
    return PRODUCTS if type(huggingface_model(model))._can_set_attn_implementation() else "eager"


def _attend(
    module: torch.nn.Module,
    query: Float[Tensor, "batch head pos d_head"],
    key: Float[Tensor, "batch group pos d_head"],
    value: Float[Tensor, "batch group pos d_value"],
    attention_mask: Float[Tensor, "batch one pos pos"] | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Float[Tensor, "batch pos head d_value"], Tensor | None]:
    """Attention as transformers calls it. What is more than scaled products and a mask is left to the model's own code."""
    usual = scaling is not None and attention_mask is not None and attention_mask.shape[1] == 1 and dropout == 0
    if not usual or any(value is not None for name, value in options.items() if name not in NOT_IN_SCORES):
        own = sys.modules[type(module).__module__].eager_attention_forward
        return own(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options)
    return _Products.apply(query, key, value, attention_mask, scaling).transpose(1, 2).contiguous(), None


class _Products(torch.autograd.Function):
    """softmax(scaling q k^T + mask) v; heads that share keys are rows of one product."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        """What each head reads."""
        n_rows, n_heads, n_tokens, _ = query.shape
        n_groups, n_keys = key.shape[1:3]
        scaled = (query * scaling).reshape(n_rows, n_groups, -1, query.shape[-1])
        scores = (scaled @ key.transpose(2, 3)).view(n_rows, n_groups, -1, n_tokens, n_keys)
        weights = scores.add_(mask[:, :, None, :, :n_keys]).softmax(-1).view(n_rows, n_groups, -1, n_keys)
        ctx.save_for_backward(scaled, key, value, weights)
        ctx.scaling = scaling
        return (weights @ value).view(n_rows, n_heads, n_tokens, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """The gradients along queries, keys and values."""
        scaled, key, value, weights = ctx.saved_tensors
        of_read = gradients[0].reshape(*weights.shape[:3], -1)
        of_weights = of_read @ value.transpose(2, 3)
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = (of_scores @ key).mul_(ctx.scaling).view(*gradients[0].shape[:3], -1)
        return of_query, of_scores.transpose(2, 3) @ scaled, weights.transpose(2, 3) @ of_read, None, None
