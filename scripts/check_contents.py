"""What wheel and sdist must hold, and must not.

Run: python scripts/check_contents.py dist
"""

import sys
import tarfile
import zipfile
from pathlib import Path

IN_WHEEL = (
    "steerlens/__init__.py",
    "steerlens/__init__.pyi",
    "steerlens/py.typed",
    "model.safetensors",
    "projection.html",
)
IN_SDIST = ("README.md", "LICENSE", "pyproject.toml", "tests/conftest.py", "CITATION.cff", "constraints.txt")
NEVER = ("__pycache__", ".pyc", ".partial", ".lock", "/runs/", ".venv", ".pytest_cache", ".ipynb_checkpoints")
LARGEST = 32 * 2**20
"""Bytes of a file to upload."""


def check(archive: Path, names: list[str], wanted: tuple[str, ...]) -> list[str]:
    """What is wrong with one archive, in words."""
    missing = [name for name in wanted if not any(entry.endswith(name) for entry in names)]
    stray = [name for name in names if any(part in name for part in NEVER)]
    faults = [f"{archive.name} lacks {name}" for name in missing] + [f"{archive.name} holds {name}" for name in stray]
    if (size := archive.stat().st_size) > LARGEST:
        faults.append(f"{archive.name} has {size / 2**20:.0f} MiB, more than {LARGEST / 2**20:.0f}")
    print(f"{archive.name}: {len(names)} files, {size / 2**20:.1f} MiB")
    return faults


def main(directory: Path) -> int:
    """Print what is wrong; 1 where anything is."""
    (wheel,), (sdist,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        faults = check(wheel, file.namelist(), IN_WHEEL)
        outside = {name.split("/")[0] for name in file.namelist()} - {"steerlens"}
        faults += [f"{wheel.name} installs {name}" for name in outside if not name.endswith(".dist-info")]
    with tarfile.open(sdist) as file:
        faults += check(sdist, file.getnames(), IN_SDIST)
    print("\n".join(faults) or "contents as they should be")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
