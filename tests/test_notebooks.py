"""The notebooks run on another model when the one line that names it is changed."""

import json
import re
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("0[0-8]_*.ipynb"))
NAMED = re.compile(r'"organism(:[\w-]+)?"')
LARGE = re.compile(r"(?<![\w.])\d{3,}(?![\w.])")


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_its_model_once(notebook):
    assert len(NAMED.findall("\n".join(code_cells(notebook)))) == 1


QUICK = [notebook for notebook in NOTEBOOKS if notebook.stem[:2] in ("00", "02", "03", "04")]
"""The others take minutes each."""


def fewer(source: str) -> str:
    """A quarter of the rows: what is tested is that everything runs."""
    return LARGE.sub(lambda number: str(int(number[0]) // 4) if int(number[0]) >= 300 else number[0], source)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", QUICK, ids=lambda path: path.stem)
def test_a_notebook_runs_on_another_model_by_one_line(notebook):
    first, *others = code_cells(notebook)
    other = "organism-seed-1" if "read_profile" in first else "organism:seed-1"
    names = {}
    with warnings.catch_warnings(action="ignore"):
        for source in (NAMED.sub(f'"{other}"', first), *others):
            exec(fewer(source), names)
