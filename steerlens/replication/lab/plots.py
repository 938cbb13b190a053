"""The figures that experiments share. Each takes results and returns a plotly figure, which is never shown."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

import steerlens as sl

COLORS = ("#c1440e", "#2b6cb0", "#2f855a", "#805ad5", "#b7791f", "#0987a0", "#97266d", "#4a5568")
SHAPES = ("circle", "diamond", "square", "cross", "x", "star")
GREY = "#a0aec0"
LAYOUT = {
    "template": "plotly_white", "font": {"family": "Georgia, serif", "size": 14},
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.05},
}  # fmt: skip
Curve = tuple[Sequence[float], Sequence[float]]
"""Values of x and y."""


def _figure(columns: int = 1, titles: Iterable[str] = (), **options) -> go.Figure:
    return make_subplots(rows=1, cols=columns, subplot_titles=list(titles) or None, horizontal_spacing=0.12, **options)


def plot_curves(
    panels: Mapping[str, Mapping[str, Curve]], *, x: str, log_x: bool = False, lines: Mapping[str, float] | None = None
) -> go.Figure:
    """Curves in panels; a curve has one color in all of them.

    Args:
        panels: by the title of each, its curves by name.
        x: what the horizontal axis is.
        lines: dotted horizontal lines in the first panel, by what they say.
    """
    figure = _figure(len(panels), list(panels))
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for column, curves in enumerate(panels.values(), 1):
        for name, (xs, ys) in curves.items():
            figure.add_scatter(
                x=list(xs), y=list(ys), name=name, mode="lines+markers", legendgroup=name, showlegend=column == 1,
                line_color=COLORS[names.index(name) % len(COLORS)], row=1, col=column,
            )  # fmt: skip
    for number, (name, value) in enumerate((lines or {}).items()):
        figure.add_hline(
            y=value, line_dash="dot", line_color=GREY, annotation_text=name, row=1, col=1,  # pyright: ignore[reportArgumentType]
            annotation_position=("bottom right", "top left", "top right", "bottom left")[number % 4],
        )  # fmt: skip
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title=x, type="log" if log_x else "linear")
    return figure


def plot_learning_rates(
    panels: Mapping[str, Mapping[str, Mapping[float, float]]], *, lines: Mapping[str, float] | None = None
) -> go.Figure:
    """Curves in panels as `plot_curves` draws them, each of values by the peak learning rate."""
    curves = {
        title: {name: (sorted(found), [found[rate] for rate in sorted(found)]) for name, found in panel.items()}
        for title, panel in panels.items()
    }
    return plot_curves(curves, x="peak learning rate", log_x=True, lines=lines)


def plot_points(
    kinds: Mapping[str, Mapping[str, tuple[float, float]]], *, x: str, y: str, line: float | None = None
) -> go.Figure:
    """Named points; each kind has a color and a shape of its own.

    Args:
        kinds: by kind, (x, y) by name.
        line: a dotted horizontal line.
    """
    figure = go.Figure()
    for index, (kind, points) in enumerate(kinds.items()):
        shape, color = SHAPES[index // len(COLORS)], COLORS[index % len(COLORS)]
        figure.add_scatter(
            x=[one for one, _ in points.values()], y=[other for _, other in points.values()], text=list(points), name=kind,
            mode="markers+text" if sum(map(len, kinds.values())) < 30 else "markers", textposition="top center",
            textfont={"size": 10, "color": "#718096"}, marker={"color": color, "size": 11, "symbol": shape},
        )  # fmt: skip
    if line is not None:
        figure.add_hline(y=line, line_dash="dot", line_color=GREY)
    figure.update_layout(**LAYOUT, height=460)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def plot_matrix(values: Mapping[str, Mapping[str, float]], *, rows: str, columns: str, title: str) -> go.Figure:
    """Numbers by row and column, red above 0 and blue below; `rows` and `columns` say what they are."""
    names = list(next(iter(values.values())))
    table = np.array([[row[name] for name in names] for row in values.values()])
    largest = float(np.nanmax(np.abs(table))) or 1.0
    digits = 2 if largest > 0.1 else 4
    figure = go.Figure(
        go.Heatmap(
            z=table, x=names, y=list(values), colorscale="RdBu", reversescale=True, zmin=-largest, zmax=largest,
            text=[[f"{value:.{digits}f}" for value in row] for row in table], texttemplate="%{text}",
            colorbar={"title": title},
        )
    )  # fmt: skip
    figure.update_layout(**LAYOUT, height=180 + 40 * len(values))
    figure.update_xaxes(title=columns, automargin=True)
    figure.update_yaxes(title=rows, autorange="reversed", automargin=True)
    return figure


def plot_intervals(series: Mapping[str, Mapping[str, sl.Interval]], *, title: str, line: float = 0.0) -> go.Figure:
    """Values with intervals, one line a name; one color for each series.

    Args:
        series: by the name in the legend, intervals by the name on the axis.
        line: dotted, such as chance.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(name for found in series.values() for name in found))[::-1]
    for offset, ((label, found), color) in enumerate(zip(series.items(), COLORS, strict=False)):
        shown = {name: one for name, one in found.items() if not np.isnan(one.value)}
        figure.add_scatter(
            x=[one.value for one in shown.values()], y=[names.index(name) - 0.15 * offset for name in shown],
            mode="markers", name=label, marker={"color": color, "size": 10},
            error_x={
                "array": [one.high - one.value for one in shown.values()],
                "arrayminus": [one.value - one.low for one in shown.values()],
            },
        )  # fmt: skip
    figure.add_vline(x=line, line_dash="dot", line_color=GREY)
    figure.update_layout(**LAYOUT, height=170 + 42 * len(names))
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, automargin=True)
    figure.update_xaxes(title=title)
    return figure
