"""Figures in a paper's size, as files that a paper takes."""

import importlib.util
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from steerlens.arguments import checked
from steerlens.checks import WrongInput, shown
from steerlens.files import atomic_path

WIDTHS = {"column": 3.25, "text": 6.75}
"""Inches of one column, and of both, in a two-column paper (ICML, NeurIPS and ACL differ from these by a few per cent)."""

GOLDEN = 0.618
PIXELS = 96
"""Pixels of an inch, as browsers count."""
FONT = 9 * PIXELS / 72
"""9 points, the size of a caption."""
FORMATS = (".pdf", ".svg", ".png")


@checked
def save_figure(fig: go.Figure, path: str | Path, *, width: Literal["column", "text"] | float = "column") -> None:
    """Write a figure at its size in the paper, with letters of 9 points; `fig` itself is left as it is.

        save_figure(plot_sweep(sweep), "sweep.pdf")

    Its height follows from its own shape, or is 0.618 of the width. The drawing is by kaleido, in an installed Chrome or
    Chromium, and needs no network.

    Args:
        path: its suffix says the format: .pdf or .svg, or .png at 300 dots an inch.
        width: "column" (3.25 inches), "text" (6.75 inches), or inches.

    Raises:
        ImportError: kaleido is not installed.
        OSError: there is no Chrome or Chromium, or the file cannot be written.
        ValueError: the suffix or the width is not known.
    """
    if not isinstance(fig, go.Figure):
        raise WrongInput(f"fig must be a plotly Figure, such as steerlens.plot_sweep returns, got {shown(fig)}.")
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path} does not say a format that is known. Allowed: {', '.join(FORMATS)}.")
    pixels = PIXELS * _inches(width)
    if importlib.util.find_spec("kaleido") is None:
        raise ImportError("Figures are written by the kaleido package. Install it: pip install 'steerlens[figures]'.")
    layout: Any = fig.layout
    shape = layout.height / layout.width if layout.height and layout.width else GOLDEN
    scale = 300 / PIXELS if suffix == ".png" else 1
    try:
        drawn = _for_paper(fig).to_image(format=suffix[1:], width=pixels, height=pixels * shape, scale=scale)
    except RuntimeError as error:  # plotly's own, where kaleido finds no browser
        raise OSError(
            "kaleido draws figures in Chrome or Chromium, and found neither. Install one: apt-get install chromium, or run "
            "plotly_get_chrome. Elsewhere, figure.write_html(...) and the browser's own printing do."
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(drawn)


def _inches(width: Any) -> float:
    inches = WIDTHS.get(width) if isinstance(width, str) else width
    if not isinstance(inches, int | float) or not 1 <= inches <= 40:
        raise ValueError(f"Got width={width!r}. Give {', '.join(map(repr, WIDTHS))}, or inches between 1 and 40.")
    return float(inches)


def _for_paper(fig: go.Figure) -> go.Figure:
    """A copy with small letters and margins, and the legend above the drawing; titles go into captions."""
    paper = go.Figure(fig).update_layout(
        title=None,
        font_size=FONT,
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font_size": FONT},
        hovermode=False,
    )
    paper.update_annotations(font_size=FONT)
    paper.update_xaxes(automargin=True, title_font_size=FONT)
    paper.update_yaxes(automargin=True, title_font_size=FONT)
    return paper
