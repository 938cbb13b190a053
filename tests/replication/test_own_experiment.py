"""What docs/guide/replicate.md tells a contributor to write is under 60 lines, and runs on the organism."""

from pathlib import Path

import pytest

import steerlens as sl
from steerlens.cli import main
from steerlens.replication.lab.run import Results

DOCS = Path(__file__).parents[2] / "docs" / "guide"


def test_the_example_is_short_and_the_guide_shows_it():
    code = (DOCS / "more_rows.py").read_text()
    prose = (DOCS / "more_rows.md.txt").read_text()
    assert len(code.splitlines()) + len(prose.splitlines()) < 65
    assert len(code.splitlines()) < 60
    guide = (DOCS / "replicate.md").read_text()
    assert '--8<-- "docs/guide/more_rows.py"' in guide
    assert '--8<-- "docs/guide/more_rows.md.txt"' in guide


@pytest.mark.slow
def test_a_contributors_experiment_runs_and_is_resumed(small_profile, tmp_path, capsys):
    command = [
        "replicate",
        str(DOCS / "more_rows.py"),
        "--on",
        str(small_profile),
        "--preset",
        "smoke",
        "--workers",
        "1",
    ]
    for _ in range(2):
        assert main([*command, "--out", str(tmp_path)]) in (0, 3)
        assert "more rows, more of the trait" in capsys.readouterr().out
    (path,) = tmp_path.rglob("results.json")
    results = sl.load_record(path, Results)
    assert set(results.measures["students"]) == {"24 rows", "12 rows"}
    assert "How often do students name the trait?" in path.with_name("report.html").read_text()
