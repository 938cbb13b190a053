"""Figures of the experiments on cause; each function takes results and returns a plotly Figure, which is never shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.figures.palette import COLORS, CONTROL, GREY, LAYOUT


def plot_conditions(
    groups: Mapping[str, Sequence[Mapping[str, Any]]], base: Mapping[str, float], colors: Mapping[str, str]
) -> go.Figure:
    """Trait rates by condition, one line each, one point a student and a bar at their mean, in both contexts.

    Args:
        groups: for every condition, records with `rate`, `rate_prefixed` and `mass`; a cross is a model that no longer
            answers (mass below one half).
        base: the untrained model's `rate` and `rate_prefixed`: dotted.
        colors: by condition; grey where none is given.
    """
    names = list(groups)
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=("bare question", "question after a number list")
    )
    for column, key in ((1, "rate"), (2, "rate_prefixed")):
        for row, (name, records) in enumerate(groups.items()):
            color = colors.get(name, CONTROL)
            rates = [record[key] for record in records]
            figure.add_bar(
                x=[float(np.mean(rates))], y=[row], orientation="h", marker_color=color, opacity=0.25, width=0.7,
                hoverinfo="skip", row=1, col=column,
            )  # fmt: skip
            figure.add_scatter(
                x=rates, y=row + np.linspace(-0.2, 0.2, len(rates)), mode="markers", name=name,
                marker={
                    "color": color, "size": 9,
                    "symbol": ["x" if record["mass"] < 0.5 else "circle" for record in records],
                }, row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=base[key], line_dash="dot", line_color="#000", col=column, row=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, showlegend=False, height=110 + 44 * len(names))
    figure.update_xaxes(range=[-0.02, 1.02], title="share of the trait's answer")
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True, col=1
    )
    return figure


def plot_effect_and_transfer(arms: Mapping[str, Mapping[str, Any]], groups: Mapping[str, str]) -> go.Figure:
    """What a teacher has of the prompt's effect on lists, and how much of the prompt's transfer its students have.

    Args:
        arms: for every teacher `effect_on_lists` and `share` (value, low, high, or None without students).
        groups: the kind of each teacher, one color and legend entry each.
    """
    figure = go.Figure()
    for kind, color in zip(dict.fromkeys(groups.values()), COLORS, strict=False):
        shown = {name: arm for name, arm in arms.items() if groups[name] == kind and arm["share"] is not None}
        shares = [arm["share"] for arm in shown.values()]
        figure.add_scatter(
            x=[max(-1.0, arm["effect_on_lists"]) for arm in shown.values()],
            y=[share["value"] for share in shares],
            error_y={
                "array": [share["high"] - share["value"] for share in shares],
                "arrayminus": [share["value"] - share["low"] for share in shares],
                "thickness": 1,
            },
            mode="markers", name=kind, marker={"color": color, "size": 12}, text=list(shown),
        )  # fmt: skip
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": GREY}, name="in proportion", hoverinfo="skip"
    )
    figure.add_hline(y=0, line_color=GREY)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.15}, height=460)
    figure.update_xaxes(title="share of the prompt's effect on pure lists that the teacher has (1: as prompted)")
    figure.update_yaxes(title="share of the transfer in its students")
    return figure
