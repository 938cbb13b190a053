"""steerlens: system prompts as steering vectors, from prompt to trained student.

The public names stand in `__init__.pyi`, with the module that each comes from. Editors and type checkers read that file, and
so does `__getattr__` below, which imports a name when it is first used. That keeps `import steerlens` fast.
"""

import ast
import importlib
import os
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

if "OMP_WAIT_POLICY" not in os.environ:
    # Read by GNU OpenMP when torch is loaded: how long threads that wait for each other spin before they sleep. With its own
    # 300,000 rounds, each operation beside another busy process lasts until that one loses a processor.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _read_homes() -> dict[str, str]:
    """The module of every public name."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {name.name: str(node.module) for node in imports for name in node.names}


_HOMES = _read_homes()
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'steerlens' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
