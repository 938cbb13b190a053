"""peft adapters in a bridge: put one in, switch it off for a while."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.files import read_json, reading
from steerlens.models.bridge import huggingface_model
from steerlens.models.files import require_files, unusable
from steerlens.models.identity import model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

UNDERSTOOD = ("LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "FOURIERFT", "LN_TUNING", "HRA",
              "TRAINABLE_TOKENS", "MISS", "RANDLORA", "SHIRA", "C3A")  # fmt: skip
"""peft's kinds of adapters that are layers inside the model."""


def with_adapter(model: Any, adapter: Path) -> Any:
    """The model with a peft adapter in it; without the adapter's weights, peft would look for them on the Hub."""
    from peft import PeftConfig, PeftModel

    weights = "adapter_model.bin" if (adapter / "adapter_model.bin").is_file() else "adapter_model.safetensors"
    for name in ("adapter_config.json", weights):
        require_files(adapter, name, what="peft adapter")
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        if config.peft_type is None:
            raise LookupError("adapter_config.json names no peft_type")
    except Exception as error:
        raise unusable(str(adapter), "peft adapter of this model", error) from error
    check_kind(config)
    try:
        model = PeftModel.from_pretrained(model, str(adapter)).get_base_model()
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise unusable(str(adapter), "peft adapter of this model", error) from error
    student = adapter / "student.json"
    if student.is_file():
        with reading(student):
            model.config.chat_fingerprint = read_json(student)["chat_fingerprint"]
    return model


def base_of(model: Any) -> Any:
    """The Hugging Face model inside a PeftModel, with the adapter in it.

    Raises:
        ValueError: the adapter acts elsewhere than in the model's modules.
    """
    for config in model.peft_config.values():
        check_kind(config)
    return model.get_base_model()


def check_kind(config: Any) -> None:
    """Refuse an adapter that does not act in the model's own modules alone.

    Raises:
        ValueError: it does not; names its kind.
    """
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        raise ValueError(
            f"The adapter's kind is {kind}: it puts trained vectors before or into every prompt, not into the weights, and "
            "without them the model is its bare base. Such adapters are not supported; train LoRA matrices instead, or "
            "compare a prompt as text (fit_prompt_vector)."
        )
    if kind not in UNDERSTOOD or getattr(config, "alora_invocation_tokens", None):
        what = "LoRA that waits for its invocation tokens" if kind in UNDERSTOOD else kind
        raise ValueError(
            f"The adapter's kind is {what}, of which it is not known that all of it acts in the model's modules and can be "
            f"switched off there. Allowed: {', '.join(UNDERSTOOD)}. Where peft can, merge the adapter into its base "
            "(merge_and_unload, then save_pretrained), and load that."
        )


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

    return [module for module in huggingface_model(model).modules() if isinstance(module, BaseTunerLayer)]


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
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)
