"""What is killed goes on, and ends with the very files of a command that was left alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.faults.kill import N_KILLS


def content(directory: Path, name: Path) -> object:
    """What a file says, apart from where it lies; safetensors writes its metadata in any order."""
    path = directory / name
    if path.suffix != ".safetensors":
        return path.read_bytes().replace(str(directory).encode(), b"")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {name: (str(t.dtype), t.shape, t.numpy().tobytes()) for name, t in tensors.items()}


@pytest.mark.slow
def test_commands_killed_at_some_thirty_random_moments_leave_what_they_would_have_left(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.kill", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    for name, n_kills in N_KILLS.items():
        assert f"{name} {n_kills}\n" in done.stdout, "a kill met a command that had already ended"
        killed, whole = (tmp_path / which / name for which in ("killed", "whole"))
        files = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
        assert {path.relative_to(killed) for path in killed.rglob("*") if path.is_file()} == files
        assert [path for path in files if content(killed, path) != content(whole, path)] == []
