"""One process at a time: two runs in one place would undo each other's work."""

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from steerlens.files import writing

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def held(path: str | Path) -> Iterator[None]:
    """Hold the lock file `path` while the block lasts; the kernel lets go of it however the process ends.

    A process may hold it more than once. Of the processes that `torchrun` starts, the first holds it for all.

    Raises:
        BlockingIOError: another process holds it; says which.
        OSError: the lock file cannot be written.
    """
    from filelock import FileLock, Timeout

    if os.environ.get("RANK", "0") != "0":
        yield
        return
    path = Path(path).resolve()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0, is_singleton=True)
        with contextlib.suppress(Timeout):
            lock.acquire()
    if not lock.is_locked:
        raise BlockingIOError(
            f"Another run is writing here: {_holder(path)} holds {path}. Wait until it ends, end it, or choose another path."
        )
    try:
        with writing(path):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        if lock.lock_counter == 1:
            path.unlink(missing_ok=True)
        lock.release()


def alone(run: Callable[Concatenate[str | Path, P], T]) -> Callable[Concatenate[str | Path, P], T]:
    """Let a function that fills a directory, its first argument, hold that directory's lock meanwhile."""

    @functools.wraps(run)
    def locked(directory: str | Path, *args: P.args, **kwargs: P.kwargs) -> T:
        with held(Path(directory) / ".lock"):
            return run(directory, *args, **kwargs)

    return locked


def beside(path: str | Path) -> Path:
    """The lock file of a file, or of a directory that is put in place as a whole."""
    path = Path(path).resolve()
    return path.with_name(f".{path.name}.lock")


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") or "another process"
