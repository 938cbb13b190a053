"""Atomic writes: a file is whole or absent, whatever happens while it is written."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an exception.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; says which, and what stays intact.
    """
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise _explained(error, target) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _explained(error: OSError, target: Path) -> OSError:
    return OSError(
        error.errno,
        f"{target} could not be written ({error.strerror or error}). What was written before is unchanged. "
        "Free some space or choose a directory that you may write to, then run again",
    )


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A temporary directory beside `path` that becomes `path` when the block ends without an exception.

    Raises:
        OSError: as `atomic_path`.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        raise _explained(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_partial(directory: str | Path) -> None:
    """Delete what killed writes have left in `directory`, where nothing else is writing."""
    for left in Path(directory).glob(".*.partial"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` atomically as indented JSON; not-a-number becomes null."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Delete it, and run again to make it anew.") from error


def save_tensors(path: str | Path, tensors: Mapping[str, "Tensor"], *, kind: str, facts: Mapping[str, Any]) -> None:
    """Write one safetensors file, atomically, that says what it is and carries `facts` as JSON."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, {"format": f"steerlens.{kind}", "facts": json.dumps(facts)})


def load_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The tensors and facts that `save_tensors` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}, where {kind} should be. Give the path that save() wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != f"steerlens.{kind}":
                raise ValueError(f"{path} is a safetensors file, but does not hold {kind}. Give one that does.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(metadata["facts"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it, and make it anew.") from error
