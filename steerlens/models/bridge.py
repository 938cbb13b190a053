"""The residual-only TransformerBridge around a Hugging Face model.

TransformerLens' own bridge re-implements attention and wraps every norm and linear map. steerlens reads
and writes the residual stream alone, so its bridge wraps only the embedding, the blocks, the final norm
and the unembedding; attention and MLPs stay the native Hugging Face modules, with sdpa, peft, deepcopy
and saving intact. A bridge from `TransformerBridge.boot_transformers` works with every function too.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from steerlens.checks import WrongInput
from steerlens.models.four_bits import keep_gradients
from steerlens.models.identity import model_name, remember_weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel


def bridge(model: "PreTrainedModel", tokenizer: Any, *, name: str) -> "TransformerBridge":
    """Wrap a loaded Hugging Face causal model, in place, into a residual-only bridge.

    Raises:
        ValueError: the architecture is not known to TransformerLens.
    """
    from transformer_lens.model_bridge.generalized_components import opaque_block
    from transformer_lens.model_bridge.sources import _bridge_builder, _hf_format

    def keep_residual_stream(adapter: Any) -> None:
        components = adapter.component_mapping
        blocks = opaque_block.OpaqueBlockBridge(name=components["blocks"].name)
        adapter.component_mapping = {
            "embed": components["embed"],
            "blocks": blocks,
            "ln_final": components["ln_final"],
            "unembed": components["unembed"],
        }
        adapter.cfg.attn_implementation = None

    from steerlens.models.residual_bridge import ResidualBridge, keep_names

    remember_weights(model)
    keep_gradients(model)
    architecture = _hf_format.determine_architecture_from_hf_config(model.config)
    wrapped = _bridge_builder.build_bridge_from_module(
        model,
        architecture,
        hf_config=model.config,
        model_name=name,
        post_adapter_hook=keep_residual_stream,
    )
    wrapped.__class__ = ResidualBridge  # the builder knows one class only
    keep_names(model)
    model.__dict__["resize_token_embeddings"] = (
        wrapped.resize_token_embeddings
    )  # Hugging Face's own refuses wrapped modules
    wrapped.tokenizer = tokenizer
    return wrapped.eval()


def is_wrapped(model: "PreTrainedModel") -> bool:
    """Whether a bridge is in the Hugging Face model."""
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    return any(isinstance(module, GeneralizedComponent) for module in model.modules())


def huggingface_model(model: "TransformerBridge") -> "PreTrainedModel":
    """The Hugging Face model inside the bridge; the bridge's hooks fire in its forward too."""
    return model.original_model  # pyright: ignore[reportReturnType]


def trunk(model: "TransformerBridge") -> torch.nn.Module:
    """What is below the head of the Hugging Face model: it runs in every forward, of the whole model or by itself."""
    return huggingface_model(model).base_model


def check_bridge(model: Any) -> None:
    """Refuse what is no bridge.

    Raises:
        WrongInput: it is none; says how to make one.
    """
    if hasattr(model, "original_model") and hasattr(model, "cfg"):
        return
    if isinstance(model, str):
        how = f"Load it: steerlens.load_model({model!r})."
    else:
        how = "Wrap a Hugging Face model: steerlens.wrap_model(model, tokenizer)."
    raise WrongInput(f"model must be what steerlens.load_model returns, got {type(model).__name__}. {how}")


def check_layer(model: "TransformerBridge", layer: int) -> int:
    """`layer`, if it names a block of `model`.

    Raises:
        ValueError: it does not. Layer l is the output of block l, 0 <= l < n_layers.
    """
    n_layers = model.cfg.n_layers
    if not 0 <= layer < n_layers:
        raise ValueError(
            f"layer={layer} is out of range for {model_name(model)!r} (n_layers={n_layers}). "
            f"Layers name block outputs, 0..{n_layers - 1}."
        )
    return layer


def is_watched(model: "TransformerBridge") -> bool:
    """Whether anything reads or edits the residual stream at the moment."""
    return any(block.hook_out._forward_hooks for block in model.blocks)


def parameters_device(model: "TransformerBridge") -> torch.device:
    """The device of the model's first parameter."""
    return next(huggingface_model(model).parameters()).device


@contextlib.contextmanager
def evaluating(model: "TransformerBridge") -> Iterator[None]:
    """The model in eval mode for as long as the block lasts: no dropout, and so no draw from torch's random state."""
    roots = (model, huggingface_model(model))  # neither holds all of the other's modules
    modes = [(module, module.training) for root in roots for module in root.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def frozen(model: "TransformerBridge") -> Iterator[None]:
    """No gradient reaches the weights inside the `with`."""
    parameters = [p for p in huggingface_model(model).parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
