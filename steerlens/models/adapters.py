"""peft adapters in a bridge: which are supported, whether one is there, and the model without it for a while."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import model_name

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformer_lens.model_bridge import TransformerBridge

UNDERSTOOD = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "FOURIERFT", "LN_TUNING", "HRA",
              "TRAINABLE_TOKENS", "MISS", "RANDLORA", "SHIRA", "C3A")  # fmt: skip
"""peft's kinds of adapters that are layers inside the model, and are nothing where those are switched off."""

BASE = "weights_that_the_adapter_replaced"


def check_kind(config: Any) -> None:
    """Refuse an adapter that does not act in the model's own modules alone.

    Raises:
        ValueError: it does not; names its kind.
    """
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if getattr(config, "is_prompt_learning", False):
        raise ValueError(
            f"The adapter's kind is {kind}: it puts trained vectors before every prompt, not into the weights, and without "
            "them the model is its bare base. Such adapters are not supported; train LoRA matrices instead, or give the "
            "prompt as text."
        )
    if getattr(config, "alora_invocation_tokens", None):
        kind = "LORA that waits for its invocation tokens"
    if kind not in UNDERSTOOD:
        raise ValueError(
            f"The adapter's kind is {kind}, of which it is not known that all of it acts in the model's modules and can be "
            f"switched off there. Allowed: {', '.join(UNDERSTOOD)}. Where peft can, merge the adapter into its base "
            "(merge_and_unload, then save_pretrained), and load that."
        )


def base_of(model: Any) -> Any:
    """The Hugging Face model inside a PeftModel, with the adapter in it.

    Raises:
        ValueError: the adapter acts elsewhere than in the model's modules.
    """
    for config in model.peft_config.values():
        check_kind(config)
    return model.get_base_model()


def keep_base(hf: Any, overwritten: "list[tuple[nn.Parameter, Tensor]]") -> None:
    """Keep the base's values of its own weights that an adapter has changed, for `adapter_disabled`."""
    hf.__dict__[BASE] = [(weight, own) for weight, own in overwritten if not bool((weight == own).all())]


def has_adapter(model: "TransformerBridge") -> bool:
    """Whether peft layers are in the model."""
    return bool(_adapter_layers(model))


def refuse_adapter(model: "TransformerBridge", reason: str) -> None:
    """Refuse a model that carries a peft adapter.

    Raises:
        ValueError: it does; begins with `reason`.
    """
    if has_adapter(model):
        raise ValueError(
            f"{model_name(model)!r} carries a peft adapter. {reason}: keep the adapter's own directory beside the base, or "
            "write base and adapter as one, steerlens.save_model(model, directory, merge_adapter=True)."
        )


def _adapter_layers(model: "TransformerBridge") -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)  # of the latter are modules_to_save
    return [module for module in huggingface_model(model).modules() if isinstance(module, kinds)]


@contextlib.contextmanager
def adapter_disabled(model: "TransformerBridge") -> Iterator[None]:
    """The model without its peft adapters for as long as the block lasts: its base, at no memory cost.

    Raises:
        ValueError: the model has no adapter.
    """
    layers = _adapter_layers(model)
    if not layers:
        raise ValueError(
            f"{model_name(model)!r} has no peft adapter, so there is no base to fall back on. "
            "Load it with load_model(..., adapter=directory)."
        )
    trainable = {parameter: parameter.requires_grad for layer in layers for parameter in layer.parameters()}
    replaced = [(weight, weight.data, own) for weight, own in huggingface_model(model).__dict__.get(BASE, [])]
    for layer in layers:
        layer.enable_adapters(False)
    for weight, _, own in replaced:
        weight.data = own.to(weight.device)
    try:
        yield
    finally:
        for weight, adapted, _ in replaced:
            weight.data = adapted
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)
