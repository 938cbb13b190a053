"""Which model this is: the name, commit, bridge, weights and chat context that artifacts carry and are checked against."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def model_name(model: "TransformerBridge") -> str:
    """The name that artifacts carry, such as "organism:seed-0"."""
    return model.cfg.model_name or "unnamed"


def commit_hash(model: "TransformerBridge") -> str | None:
    """The Hub commit that the weights were loaded from; None for a local checkpoint."""
    return getattr(model.original_model.config, "_commit_hash", None)


def bridge_mode(model: "TransformerBridge") -> str:
    """How the model is wrapped: "residual-only" as by `load_model`, or "boot_transformers".

    Compatibility mode folds weights, which changes what resid_post means, so it is named as well.
    """
    from transformer_lens.model_bridge.generalized_components import opaque_block

    ours = type(model.blocks[0]) is opaque_block.OpaqueBlockBridge
    mode = "residual-only" if ours else "boot_transformers"
    return f"{mode}, compatibility mode" if model.compatibility_mode else mode


def weights_fingerprint(model: "TransformerBridge") -> str | None:
    """12 hex digits of the weights that the model, or the base that it was fine-tuned from, was loaded with.

    The same checkpoint in another dtype has another fingerprint. None where weights are not in memory.
    """
    return remember_weights(model.original_model)


def weights_are_as_loaded(model: "TransformerBridge") -> bool:
    """Whether the weights still have the fingerprint that they were loaded with; an adapter does not count."""
    return weights_fingerprint(model) == _hash_of_weights(model.original_model)


def current_fingerprint(model: "TransformerBridge") -> str | None:
    """12 hex digits of the weights as they are now, an adapter's included. None where weights are not in memory."""
    return fingerprint_of(model.original_model)


def weights_dtype(model: "TransformerBridge") -> str:
    """The dtype that the model computes in, such as "bfloat16"; "bfloat16, 4-bit" where its weights are quantised."""
    hf = model.original_model
    dtype = str(hf.dtype).removeprefix("torch.")
    return f"{dtype}, 4-bit" if is_4bit(model) else dtype


def fingerprint_of(model: nn.Module) -> str | None:
    """12 hex digits of all weights of a Hugging Face model as they are now."""
    return _hash_of_weights(model, adapters=True)


def is_4bit(model: "TransformerBridge") -> bool:
    """Whether the model's linear maps are quantised to 4 bits."""
    return getattr(model.original_model, "is_loaded_in_4bit", False)


def training_context(model: "TransformerBridge") -> str | None:
    """Fingerprint of the chat context in which a student was trained; None for other models."""
    return getattr(model.original_model.config, "chat_fingerprint", None)


def remember_weights(model: nn.Module) -> str | None:
    """The weights' hash, taken once.

    The module keeps the answer, and a copy takes it along, so that training and adapters leave it as it is.
    """
    if "weights_fingerprint" not in model.__dict__:
        digest = fingerprint_of(model)
        if digest is None:
            return None
        model.__dict__["weights_fingerprint"] = digest
        model.__dict__["weights_names"] = {_WRAPPERS.sub("", name) for name, _ in model.named_parameters()}
    return model.__dict__["weights_fingerprint"]


def forget_weights(model: nn.Module) -> None:
    """Make the model one of its own, whose weights are hashed as they are now, and which no Hub commit has."""
    for fact in ("weights_fingerprint", "weights_names"):
        model.__dict__.pop(fact, None)
    model.config._commit_hash = None  # pyright: ignore


_WRAPPERS = re.compile(r"(?:_original_component|base_layer|original_module|token_adapter)\.")
"""What a bridge and peft put into the names of a model's own weights."""


def _hash_of_weights(model: nn.Module, *, adapters: bool = False) -> str | None:
    """12 hex digits of up to 128 entries of every parameter; None where some are not in memory."""
    own = model.__dict__.get("weights_names")
    weights = [
        parameter.detach()
        for name, parameter in model.named_parameters()
        if adapters or own is None or _WRAPPERS.sub("", name) in own
    ]
    if any(weight.is_meta for weight in weights):
        return None
    digest = hashlib.sha256()
    for weight in weights:
        entries = weight.flatten()[:: max(1, weight.numel() // 64)]
        digest.update(entries.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def cached_commit(source: str, revision: str | None, file: str = "config.json") -> str | None:
    """The commit that a Hub name was just loaded from; None for a directory. transformers 5 no longer says."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return None
    path = try_to_load_from_cache(source, file, revision=revision)
    return Path(path).parents[Path(file).as_posix().count("/")].name if isinstance(path, str) else None
