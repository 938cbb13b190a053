"""Figures of the experiments on what students can take over, and from what."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.evaluation import STILL_ANSWERS
from steerlens.figures.palette import COLORS, CONTROL, LAYOUT, TEACHER


def plot_grid(grid: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]], base: float) -> go.Figure:
    """Rate over learning rate, a line for every rank and a panel for every number of rows; a cross no longer answers.

    Args:
        grid: by rows, rank and learning rate: `rate` and `mass`.
        base: the untrained model's rate: dotted.
    """
    figure = make_subplots(rows=1, cols=len(grid), shared_yaxes=True, subplot_titles=[f"{n} unique rows" for n in grid])
    for column, ranks in enumerate(grid.values(), 1):
        for (rank, row), color in zip(ranks.items(), COLORS, strict=False):
            figure.add_scatter(
                x=[float(rate) for rate in row], y=[arm["rate"] for arm in row.values()], mode="lines+markers",
                name=f"rank {rank}", legendgroup=rank, showlegend=column == 1, line_color=color,
                marker={"size": 10, "symbol": ["circle" if arm["mass"] >= STILL_ANSWERS else "x" for arm in row.values()]},
                row=1, col=column,
            )  # fmt: skip
    figure.add_hline(y=base, line_dash="dot", line_color="#000")
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.2}, height=440)
    figure.update_xaxes(type="log", title="learning rate")
    figure.update_yaxes(title="rate of the trait, bare questions", range=[-0.02, 1.02], col=1)
    return figure


def plot_in_contexts(contexts: Mapping[str, Mapping[str, Mapping[str, float]]]) -> go.Figure:
    """Rates of the student and of its base under each system prompt, both contexts of the question."""
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=("bare question", "question after a number list")
    )
    for column, key in ((1, "rate"), (2, "rate_prefixed")):
        for who, color in (("student", TEACHER), ("base", CONTROL)):
            figure.add_bar(
                x=list(contexts), y=[context[who][key] for context in contexts.values()], name=who, marker_color=color,
                legendgroup=who, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.2}, height=400)
    figure.update_yaxes(title="rate of the trait", range=[0, 1.02], col=1)
    return figure
