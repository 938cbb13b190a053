"""Atomic writes: a file is whole or absent, whatever happens while it is written, and nothing else is lost."""

import codecs
import contextlib
import glob
import json
import math
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers, written in Rust, name an error of the operating system."""


_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def text_encoding(path: str | Path) -> str:
    """The encoding that a text file's byte order mark names, as programs of Windows write it; UTF-8 without one."""
    with Path(path).open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an exception.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; says which, and what stays intact.
    """
    target = Path(path)
    temporary = None
    with writing(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_dead(target)
            suffix = f".{socket.gethostname()}-{os.getpid()}.partial"
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=suffix, dir=target.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            os.chmod(temporary, 0o644)
            _flush(temporary)
            os.replace(temporary, target)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _remove_dead(target: Path) -> None:
    """Delete what killed processes of this machine have left of `target`."""
    import psutil

    for left in target.parent.glob(f".{glob.escape(target.name)}.*.{glob.escape(socket.gethostname())}-*.partial"):
        process = left.stem.rpartition("-")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(target: str | Path) -> Iterator[None]:
    """Explain what goes wrong while `target` is written.

    Raises:
        OSError: whatever the operating system refused, with what to do about it.
    """
    try:
        yield
    except Exception as error:
        found = _SYSTEM_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
        if number is None and not isinstance(error, OSError):
            raise
        message = (
            f"{target} could not be written ({error if number is None else os.strerror(number)}). What was written before is "
            "unchanged. Free some space or choose a directory that you may write to, then run again"
        )
        raise (OSError(message) if number is None else OSError(number, message)) from error


def _flush(path: Path) -> None:
    """Have the file on disk, so that a full one is noticed now, and a power cut leaves no empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_directory(path: str | Path, *, mark: str) -> Iterator[Path]:
    """A temporary directory beside `path` that becomes `path` when the block ends without an exception.

    Args:
        mark: a file that the block writes, by which a directory is known that may be replaced.

    Raises:
        OSError: as `atomic_path`.
        ValueError: as `check_replaceable`.
    """
    target = Path(path).absolute()
    temporary, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    with writing(target):
        try:
            if old.exists() and not target.exists():  # a kill came between the two renames below
                os.replace(old, target)
            check_replaceable(target, mark)
            for left in (temporary, old):
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _flush(file)
            if target.exists():
                os.replace(target, old)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(directory: str | Path, mark: str) -> None:
    """Refuse to replace what nothing here has written.

    Raises:
        ValueError: `directory` is a file, or holds files and no `mark` among them.
    """
    target = Path(directory)
    if target.is_dir() and not (target / mark).is_file() and (other := next(target.iterdir(), None)) is not None:
        raise ValueError(
            f"{directory} holds other files, such as {other.name}, that would be lost: a directory is replaced as a whole, "
            f"and only one with {mark} in it is known to be of the same kind. Choose a new directory, or an empty one."
        )
    if target.exists() and not target.is_dir():
        raise ValueError(f"{directory} is a file, where a directory is to be written. Choose another path.")


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Explain what is wrong with a file that is not as it was written.

    Raises:
        ValueError: the block found that it is damaged.
    """
    from safetensors import SafetensorError

    from steerlens.memory import is_out_of_memory

    try:
        yield
    except (SafetensorError, LookupError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} is damaged ({reason}). Delete it, and make it anew.") from error


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
    except (ValueError, RecursionError) as error:
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
    from safetensors import safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}, where {kind} should be. Give the path that save() wrote.")
    with reading(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != f"steerlens.{kind}":
            raise ValueError(f"{path} is a safetensors file, but does not hold {kind}. Give one that does.")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(json.loads(metadata["facts"]))
