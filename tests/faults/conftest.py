"""Stand-ins for what goes wrong on real machines."""

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HOLDER = """
import sys
from steerlens.lock import held
with held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def _full_after(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_after() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """A disk on which no file can be longer than so many bytes; the system's refusal takes the way of a full one's."""
    return _full_after


@contextlib.contextmanager
def _read_only(directory: Path) -> Iterator[None]:
    set_user = getattr(ctypes.CDLL(None), "setfsuid", lambda user: None)
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o5:
            parent.chmod(0o755)
    directory.chmod(0o555)
    if os.geteuid() == 0:
        set_user(65534)  # root writes everywhere; for the file system, be nobody
    try:
        yield
    finally:
        if os.geteuid() == 0:
            set_user(0)
        directory.chmod(0o755)


@pytest.fixture
def read_only() -> Callable[[Path], contextlib.AbstractContextManager[None]]:
    """A directory that may be read and not written to."""
    return _read_only


@contextlib.contextmanager
def _other_run(lock: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def other_run() -> Callable[[Path], contextlib.AbstractContextManager[subprocess.Popen]]:
    """Another process that holds a lock file."""
    return _other_run
