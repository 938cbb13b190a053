"""Load a model: a Hugging Face directory or Hub name, or the embedded organism."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steerlens.models.adapters import with_adapter
from steerlens.models.bridge import bridge
from steerlens.models.files import require_files, unusable
from steerlens.models.four_bits import four_bits
from steerlens.models.identity import cached_commit, remember_weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ORGANISMS = Path(__file__).parents[1] / "organism" / "shipped"
DEFAULT_ORGANISM = "seed-0"


def load_model(
    name_or_path: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
    dtype: torch.dtype = torch.float32,
    load_in_4bit: bool = False,
    adapter: str | Path | None = None,
    revision: str | None = None,
) -> "TransformerBridge":
    """Load a model for capture, steering and training.

    Args:
        name_or_path: None is the embedded organism; "organism:seed-1" and "organism:no-persona-numbers" are its
            other versions; otherwise a local directory or a Hugging Face Hub name.
        device: None takes a GPU where there is one.
        device_map: spread the blocks as accelerate does, such as "auto" over all GPUs and then the CPU's memory; students
            are trained on one device only.
        dtype: of the weights, whatever the checkpoint's own.
        load_in_4bit: keep the blocks' linear maps in bitsandbytes' NF4 and compute in `dtype`; students get LoRA matrices.
        adapter: a peft adapter's directory; it stays separate, so that `adapter_disabled` can switch it off.
        revision: of a Hub name: branch, tag or commit. Vectors record the commit, and act on no other silently.

    Returns:
        A residual-only TransformerBridge in eval mode, with `model.tokenizer` as it was loaded.

    Raises:
        FileNotFoundError: a directory is given that does not exist, or has no model or adapter in it.
        ValueError: device and device_map are both given, the architecture is not known to TransformerLens, its weights are
            quantised by a package that is not installed, the device knows no 4 bits, or the files are damaged.
        ModuleNotFoundError: load_in_4bit, and bitsandbytes is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device is not None and device_map is not None:
        raise ValueError(f"Got device={str(device)!r} and device_map={device_map!r}, which both say where. Give one.")
    source = _resolve(name_or_path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if load_in_4bit:
        device_map = device_map or {"": str(device)}
    quantization = four_bits(dtype) if load_in_4bit else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=dtype, device_map=device_map, **quantization
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{source!r} could not be loaded as a Hugging Face model: {error}. Give a directory with config.json, "
            "weights and tokenizer, a Hub name, or None for the embedded organism."
        ) from error
    except ImportError as error:
        raise ValueError(
            f"{source!r} needs a package that is not installed: {error}. Install it, or give a checkpoint whose weights "
            "are not quantised."
        ) from error
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise unusable(source, "Hugging Face model", error, device_map if load_in_4bit else None) from error
    model.config._commit_hash = cached_commit(source, revision)
    remember_weights(model)
    if adapter is not None:
        model = with_adapter(model, Path(adapter))
    return bridge(model if device_map else model.to(device), tokenizer, name=_public_name(name_or_path))


def _resolve(name_or_path: str | Path | None) -> str:
    """The directory or Hub name that holds the weights."""
    name = f"organism:{DEFAULT_ORGANISM}" if name_or_path is None else str(name_or_path)
    if name.startswith("organism:"):
        directory = ORGANISMS / name.removeprefix("organism:")
        if not directory.is_dir():
            known = ", ".join(f"organism:{path.name}" for path in sorted(ORGANISMS.iterdir()) if path.is_dir())
            raise FileNotFoundError(f"There is no embedded organism {name!r}. There are: {known}.")
        return str(directory)
    looks_like_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1
    path = Path(name).expanduser()
    if looks_like_path or path.exists():
        require_files(path, "config.json", what="Hugging Face model")
        return str(path)
    return name


def _public_name(name_or_path: str | Path | None) -> str:
    """The name that artifacts carry: the Hub's, the organism's, or a local directory's own."""
    if name_or_path is None:
        return f"organism:{DEFAULT_ORGANISM}"
    path = Path(name_or_path).expanduser()
    return path.resolve().name if path.exists() else str(name_or_path)
