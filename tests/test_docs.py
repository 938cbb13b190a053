"""What the documentation quotes is what a script printed, and what it links to and lists is there."""

import ast
import json
import re
from pathlib import Path

import pytest

import steerlens as sl

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def quoted(kind: str) -> list[tuple[Path, str]]:
    """Every page with a table of results of the kind, and the file of these."""
    marks = rf"<!-- {kind}: (\S+) -->"
    return [(page, name) for page in PAGES for name in re.findall(marks, page.read_text(encoding="utf-8"))]


EXHIBITS = [
    (page, *found)
    for page in PAGES
    for found in re.findall(r"<!-- exhibit: (\S+) (.+) -->", page.read_text(encoding="utf-8"))
]
CLAIMS, COUNTS, ROWS = quoted("table"), quoted("counts"), quoted("rows")


def table_after(page: Path, kind: str, name: str) -> list[list[str]]:
    """The cells of the table behind the comment that names its results, without its head."""
    text = page.read_text(encoding="utf-8").partition(f"<!-- {kind}: {name} -->\n")[2]
    lines = re.match(r"(\|.*\n)+", text)
    assert lines is not None, f"{page.name} has no table behind {name}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


@pytest.mark.parametrize(("page", "name"), CLAIMS, ids=lambda value: str(value).rpartition("/")[2])
def test_a_quoted_table_of_claims_is_that_of_the_results_cell_by_cell(page, name):
    claims = json.loads((ROOT / "docs" / name).read_text())["claims"]
    expected = [[one["statement"], f"{one['measured']:.3f}", f"{one['threshold']:g}"] for one in claims]
    assert table_after(page, "table", name) == expected


@pytest.mark.parametrize(("page", "name", "section"), EXHIBITS, ids=lambda value: str(value).rpartition("/")[2])
def test_a_quoted_table_of_a_report_is_that_of_the_results_cell_by_cell(page, name, section):
    _, *expected = json.loads((ROOT / "docs" / name).read_text())["tables"][section]
    assert table_after(page, "exhibit", f"{name} {section}") == expected


@pytest.mark.parametrize(("page", "name"), COUNTS, ids=lambda value: str(value).rpartition("/")[2])
def test_quoted_counts_are_those_of_the_results_line_by_line(page, name):
    counted = json.loads((ROOT / "docs" / name).read_text())
    assert table_after(page, "counts", name) == [[what, str(count)] for what, count in counted.items()]


def test_the_quoted_first_results_are_those_of_the_benchmark_tool_by_tool():
    ((page, name),) = quoted("first results")
    tools = json.loads((ROOT / "docs" / name).read_text())["tools"]
    ours = next(iter(tools.values()))["cpu_seconds"]
    expected = [
        [
            f"{tool} {one['version']}",
            str(one["lines"]),
            f"{one['cpu_seconds']:.0f}",
            f"{one['cpu_seconds'] / ours:.1f}",
            f"{one['probability']['plain']:.5f}, {one['probability']['steered']:.5f}",
            one["gives"],
        ]
        if "skipped" not in one
        else [tool, str(one["lines"]), "", "", f"not run: {one['skipped']}", ""]
        for tool, one in tools.items()
    ]
    assert table_after(page, "first results", name) == expected


@pytest.mark.parametrize(("page", "name"), ROWS, ids=lambda value: str(value).rpartition("/")[2])
def test_quoted_rows_are_those_of_the_results_cell_by_cell(page, name):
    rows = json.loads((ROOT / "docs" / name).read_text())["rows"]
    assert table_after(page, "rows", name) == [[str(cell) for cell in row.values()] for row in rows]


def test_the_readme_is_short_and_shows_two_figures_that_are_there_and_small():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    figures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(figures) == 2
    assert all((ROOT / figure).stat().st_size < 200_000 for figure in figures)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_reference_lists_every_public_name_once():
    listed = re.findall(r"^::: steerlens\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(sl.__all__)


def test_every_flag_and_command_of_the_guide_is_one_of_the_command_line():
    from steerlens.cli import _parser

    commands = next(action.choices for action in _parser()._actions if action.choices)
    for page in PAGES:
        for line in re.findall(r"^steerlens (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert line.split()[0] in commands, f"{page.name}: steerlens {line}"


def test_the_python_of_the_readme_uses_public_names_alone():
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        used = {
            node.attr
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sl"
        }
        assert used <= set(sl.__all__), used - set(sl.__all__)


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_has_short_cells_no_outputs_and_one_line_that_chooses_the_model(notebook):
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(len("".join(cell["source"]).splitlines()) <= 15 and cell["outputs"] == [] for cell in cells)
    chosen = re.findall(
        r'^(?:model = sl\.load_model|profile = read_profile)\("', "".join(cells[0]["source"]), re.MULTILINE
    )
    assert len(chosen) == 1


def test_every_argument_of_a_public_name_has_a_line_of_its_own():
    for name in sl.__all__:
        assert not re.search(r"^ +[a-z_]+(, [a-z_]+)+: ", getattr(sl, name).__doc__ or "", re.MULTILINE), name
