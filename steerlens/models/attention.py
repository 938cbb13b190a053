"""The attention that is quickest to differentiate."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from steerlens.memory import free_bytes
from steerlens.models.bridge import huggingface_model, parameters_device

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BYTES_A_WEIGHT = 10
"""What transformers' eager attention keeps of each attention weight until its gradient is there, in half precision."""

SHARE_OF_FREE = 0.25


@contextlib.contextmanager
def attention_for_gradients(model: "TransformerBridge", n_rows: int, n_tokens: int) -> Iterator[None]:
    """Run attention as plain matrix products inside, where that is quicker to differentiate and fits into memory.

    Torch's fused attention takes three times as long as plain products backward, in bfloat16 on a CPU, and is less exact.
    Plain products keep rows x heads x tokens^2 weights a layer, for `n_rows` rows of at most `n_tokens` tokens. Inside
    another one, it changes nothing.
    """
    config = huggingface_model(model).config.get_text_config()
    if not (_is_slow(model) and _bytes(config, n_rows, n_tokens) < SHARE_OF_FREE * free_bytes(torch.device("cpu"))):
        yield
        return
    config._attn_implementation = "eager"
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
