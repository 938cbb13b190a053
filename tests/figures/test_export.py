"""A figure's file has the paper's width, and what keeps it from being written is said with its remedy."""

import importlib.util
import re
import shutil

import plotly.graph_objects as go
import pytest

from steerlens.figures.export import save_figure
from steerlens.figures.vector_plots import plot_cosines


@pytest.fixture
def figure() -> go.Figure:
    return plot_cosines({"owl": (0.2, 0.4), "cat": (0.1, 0.3)})


needs_kaleido = pytest.mark.skipif(
    shutil.which("chromium") is None and shutil.which("google-chrome") is None, reason="no Chromium is installed"
)


@needs_kaleido
@pytest.mark.slow
@pytest.mark.parametrize(("width", "inches"), [("column", 3.25), ("text", 6.75), (5.0, 5.0)])
def test_a_pdf_is_as_wide_as_the_column(figure, tmp_path, width, inches):
    pytest.importorskip("kaleido")
    before = figure.to_json()
    save_figure(figure, tmp_path / "figure.pdf", width=width)
    page = (tmp_path / "figure.pdf").read_bytes()
    box = [float(x) for x in re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", page)[0]]
    assert box[0] / 72 == pytest.approx(inches, abs=0.03)
    assert figure.to_json() == before


@needs_kaleido
@pytest.mark.slow
def test_an_svg_keeps_text_as_text_at_nine_points(figure, tmp_path):
    pytest.importorskip("kaleido")
    save_figure(figure, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    assert "owl" in drawn
    sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawn)}
    assert sizes == {12.0}


@pytest.mark.parametrize(("name", "width"), [("figure.jpeg", "column"), ("figure", "column")])
def test_formats_that_are_not_known_are_refused(figure, tmp_path, name, width):
    with pytest.raises(ValueError, match=r"Allowed: \.pdf, \.svg, \.png"):
        save_figure(figure, tmp_path / name, width=width)


@pytest.mark.parametrize("width", [0.2, 300.0])
def test_widths_that_are_no_papers_are_refused(figure, tmp_path, width):
    with pytest.raises(ValueError, match="inches between 1 and 40"):
        save_figure(figure, tmp_path / "figure.pdf", width=width)


def test_without_kaleido_the_extra_is_named(figure, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ImportError, match=r"steerlens\[figures\]"):
        save_figure(figure, tmp_path / "figure.pdf")
    assert list(tmp_path.iterdir()) == []
