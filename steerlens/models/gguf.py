"""GGUF files: converted once into a Hugging Face checkpoint, which the cache keeps and every later load reads."""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.files import atomic_directory, writing
from steerlens.lock import beside

if TYPE_CHECKING:
    import torch

CACHE_VARIABLE = "STEERLENS_CACHE"
BYTES_A_SECOND = 40e6
"""Of the converted checkpoint, on one core of a server; with OVERHEAD, what is said beforehand."""
OVERHEAD = 10


def cache_directory() -> Path:
    """Where converted checkpoints are kept: $STEERLENS_CACHE, or steerlens in $XDG_CACHE_HOME, or in ~/.cache."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "steerlens"


def converted(file: Path) -> Path:
    """The Hugging Face checkpoint that a GGUF file was converted to; the first call for these contents converts it.

    Weights are kept as the file means them: in the float type that it is written in, or where it is quantised in
    float32, which alone holds every dequantised value exactly. Processes that ask at the same time wait for the first.

    Raises:
        ValueError: the file is damaged, cut off, one part of several, or of an architecture that transformers cannot read.
        OSError: the cache cannot be written to, or the disk is too small.
    """
    from filelock import FileLock

    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    kept = cache_directory() / "gguf" / digest[:16]
    if (found := next(kept.glob("[!.]*/config.json"), None)) is not None:
        return found.parent
    tensors = _tensors(file)
    with writing(kept):
        kept.mkdir(parents=True, exist_ok=True)
        lock = FileLock(beside(kept)).acquire()
    with lock:
        if (found := next(kept.glob("[!.]*/config.json"), None)) is not None:
            return found.parent
        _convert(file, tensors, kept / file.stem)
    return kept / file.stem


def _tensors(file: Path) -> list[Any]:
    """What the file has, if it is whole."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except Exception as error:  # damaged bytes lead the reader anywhere
        raise damaged(file, f"{type(error).__name__}: {error}") from error
    parts = reader.get_field("split.count")
    if parts is not None and int(parts.contents()) > 1:
        raise ValueError(
            f"{str(file)!r} is one of {parts.contents()} parts of a GGUF. Put them together (llama-gguf-split --merge FIRST "
            "WHOLE), and give the whole file."
        )
    if not reader.tensors:
        raise damaged(file, "it has no tensors")
    return reader.tensors


def damaged(file: Path, reason: str) -> ValueError:
    """The error for a file that is not a whole GGUF."""
    return ValueError(
        f"{str(file)!r} is not a GGUF file that can be read ({reason}). It is damaged, or was not copied to its end: get it "
        "anew, and compare its checksum with the one that its source gives."
    )


def _convert(file: Path, tensors: list[Any], target: Path) -> None:
    dtype = _own_dtype(tensors)
    _say_cost(file, target, dtype.itemsize * sum(int(tensor.n_elements) for tensor in tensors))
    model, tokenizer = _read(file, dtype)
    _check_weights(file, model)
    with atomic_directory(target, mark="config.json") as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _own_dtype(tensors: list[Any]) -> "torch.dtype":
    """The float type of the matrices; norms are written in float32 beside half-precision ones."""
    import torch

    types = {tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1}
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get("".join(types), torch.float32)


def _say_cost(file: Path, target: Path, n_bytes: int) -> None:
    from tqdm.auto import tqdm

    free = shutil.disk_usage(target.parent).free
    if n_bytes > free:
        raise OSError(
            f"{file.name} takes {n_bytes / 1e9:.1f} GB once it is converted, and {free / 1e9:.1f} GB are free in "
            f"{target.parent}. Free some space, or name another directory in the environment variable {CACHE_VARIABLE}."
        )
    seconds = OVERHEAD + n_bytes / BYTES_A_SECOND
    tqdm.write(
        f"{file.name} ({file.stat().st_size / 1e6:.0f} MB) is converted once, in about {seconds:.0f} seconds, to "
        f"{n_bytes / 1e6:.0f} MB in {target}.",
        file=sys.stderr,
    )


def _read(file: Path, dtype: "torch.dtype") -> tuple[Any, Any]:
    """Model and tokenizer as transformers reads them from the file; only the model's being quantised is forgotten."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from steerlens.models.files import unusable

    where = {"gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            **where,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
        model, report = loaded
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise unusable(str(file), "GGUF file", error) from error
    if report["missing_keys"]:
        raise damaged(file, f"it lacks {', '.join(sorted(report['missing_keys'])[:3])}")
    model.hf_quantizer, model.is_quantized = None, False
    for of_the_file in ("quantization_config", "_model_name_or_path"):
        model.config.__dict__.pop(of_the_file, None)
    return model, tokenizer


def _check_weights(file: Path, model: Any) -> None:
    """A GGUF has no checksum of its own; what a broken copy leaves behind are zeros and numbers that are none."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise damaged(file, f"{name} has entries that are NaN or infinite")
        if weight.ndim > 1 and not weight.any():
            raise damaged(file, f"{name} is all zeros")
