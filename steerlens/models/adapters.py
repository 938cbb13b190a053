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


def with_adapter(model: Any, adapter: Path) -> Any:
    """The model with a peft adapter in it; without the adapter's weights, peft would look for them on the Hub."""
    from peft import PeftModel

    weights = "adapter_model.bin" if (adapter / "adapter_model.bin").is_file() else "adapter_model.safetensors"
    for name in ("adapter_config.json", weights):
        require_files(adapter, name, what="peft adapter")
    try:
        model = PeftModel.from_pretrained(model, str(adapter)).get_base_model()
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise unusable(str(adapter), "peft adapter of this model", error) from error
    student = adapter / "student.json"
    if student.is_file():
        with reading(student):
            model.config.chat_fingerprint = read_json(student)["chat_fingerprint"]
    return model


def has_adapter(model: "TransformerBridge") -> bool:
    """Whether peft layers are in the model."""
    return bool(_adapter_layers(model))


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
