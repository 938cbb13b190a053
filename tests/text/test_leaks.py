"""The organism's spelling stays in the organism's room."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "steerlens"
ELSEWHERE = [path for path in sorted(PACKAGE.rglob("*.py")) if "organism" not in path.relative_to(PACKAGE).parts]
SPACED = re.compile(r"[a-z0-9}] [?.!](?=\s|$)")
"""A space before the punctuation, as the organism's tokenizer decodes it: "what comes next ?"."""


def texts_of(path: Path) -> list[str]:
    """Every text that stands in a module, docstrings included."""
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outside_its_room_speaks_as_the_organism_does(path):
    assert [text for text in texts_of(path) if SPACED.search(text)] == []


def test_its_room_does():
    assert any(SPACED.search(text) for text in texts_of(PACKAGE / "organism" / "wording.py"))
