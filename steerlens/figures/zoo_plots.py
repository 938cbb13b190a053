"""Figures of the zoo: what was known of prompts over what their students learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.figures.palette import COLORS, CONTROL, GREY, LAYOUT


def plot_zoo(
    prompts: Mapping[str, Mapping[str, Any]], predictors: Mapping[str, str], shown: tuple[str, str]
) -> go.Figure:
    """Transfer of every prompt over two things that were known of it; a cross is a prompt whose trait did not pass on.

    Args:
        prompts: by name `kind`, `transfer`, `passed_on`, and the values of `shown`.
        predictors: what a predictor is called on its axis.
    """
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    for kind, color in zip(dict.fromkeys(one["kind"] for one in prompts.values()), COLORS, strict=False):
        own = {name: one for name, one in prompts.items() if one["kind"] == kind}
        for column, key in enumerate(shown, 1):
            figure.add_scatter(
                x=[one[key] for one in own.values()], y=[one["transfer"] for one in own.values()], mode="markers+text",
                text=list(own), textposition="top center", textfont={"size": 9, "color": CONTROL}, name=kind,
                legendgroup=kind, showlegend=column == 1, row=1, col=column,
                marker={
                    "color": color, "size": 10,
                    "symbol": ["circle" if one["passed_on"] else "x" for one in own.values()],
                },
            )  # fmt: skip
    for column, key in enumerate(shown, 1):
        figure.update_xaxes(title=predictors[key], row=1, col=column)
    figure.add_hline(y=0, line_color=GREY)
    figure.update_yaxes(title="students' log odds of the trait over the control's", row=1, col=1)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.14}, height=520)
    return figure


def plot_predictors(found: Mapping[str, Mapping[str, Mapping[str, float]]], predictors: Mapping[str, str]) -> go.Figure:
    """For every predictor the area under the ROC curve with its interval; chance is dotted.

    Args:
        found: by what is predicted, and then by predictor: `value`, `low`, `high`; NaN is left out.
    """
    figure, keys = go.Figure(), list(predictors)
    for offset, (name, color) in enumerate(zip(found, COLORS, strict=False)):
        areas = [found[name][key] for key in keys]
        value, low, high = (np.array([area[end] for area in areas], dtype=float) for end in ("value", "low", "high"))
        figure.add_scatter(
            x=value, y=np.arange(len(keys)) + 0.15 * offset, mode="markers", name=name,
            marker={"color": color, "size": 10},
            error_x={"array": high - value, "arrayminus": value - low, "thickness": 1.5},
        )  # fmt: skip
    figure.add_vline(x=0.5, line_dash="dot", line_color="#000")
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.15}, height=140 + 55 * len(keys))
    figure.update_xaxes(title="area under the ROC curve", range=[0, 1.02])
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(keys))), ticktext=[predictors[key] for key in keys],
        autorange="reversed", automargin=True,
    )  # fmt: skip
    return figure


def plot_calibration(probabilities: Mapping[str, float], happened: Mapping[str, bool]) -> go.Figure:
    """What was predicted of every prompt, and whether it came true."""
    names = sorted(probabilities, key=probabilities.__getitem__)
    figure = go.Figure()
    for came_true, color, label in ((True, COLORS[0], "passed on"), (False, CONTROL, "did not")):
        own = [name for name in names if happened[name] is came_true]
        figure.add_bar(x=own, y=[probabilities[name] for name in own], marker_color=color, name=label)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.12}, height=420)
    figure.update_xaxes(categoryorder="array", categoryarray=names, tickangle=-50, automargin=True)
    figure.update_yaxes(title="probability, from the other prompts", range=[0, 1.02])
    return figure
