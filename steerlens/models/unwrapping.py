"""Take the bridge off again, for saving and copying."""

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steerlens.models.bridge import huggingface_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel


@contextlib.contextmanager
def unwrapped(model: nn.Module) -> Iterator[None]:
    """Put the raw Hugging Face modules back for as long as the block lasts, for saving and copying."""
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    replaced: list[tuple[nn.Module, str, nn.Module | None]] = []
    hidden: list[tuple[nn.Module, Tensor]] = []

    def unwrap(parent: nn.Module) -> None:
        for name, child in list(parent._modules.items()):
            raw = child
            while isinstance(raw, GeneralizedComponent):
                raw = raw.original_component
            if raw is not child:
                replaced.append((parent, name, child))
                parent._modules[name] = raw
            if raw is not None:
                unwrap(raw)

    unwrap(model)
    resize = model.__dict__.pop("resize_token_embeddings", None)  # the bridge's, in the model's own place
    for module in model.modules():
        if isinstance(module, nn.Linear) and (bias := module._buffers.pop("bias", None)) is not None:
            hidden.append((module, bias))
            module.register_parameter("bias", None)
    try:
        yield
    finally:
        if resize is not None:
            model.__dict__["resize_token_embeddings"] = resize
        for module, bias in hidden:
            del module._parameters["bias"]
            module.register_buffer("bias", bias, persistent=False)
        for parent, name, child in reversed(replaced):
            parent._modules[name] = child


def weight_sharing_copy(model: "TransformerBridge") -> "PreTrainedModel":
    """A plain Hugging Face model with modules of its own, without bridge, and with the very weights of `model`."""
    hf = huggingface_model(model)
    with unwrapped(hf):
        return copy.deepcopy(hf, {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]})
