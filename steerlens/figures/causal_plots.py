"""Figures of the experiments on cause; each function takes results and returns a plotly Figure, which is never shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.evaluation import STILL_ANSWERS
from steerlens.figures.palette import COLORS, CONTROL, GREY, LAYOUT, TEACHER


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
                    "symbol": ["x" if record["mass"] < STILL_ANSWERS else "circle" for record in records],
                }, row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=base[key], line_dash="dot", line_color="#000", col=column, row=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, showlegend=False, height=110 + 44 * len(names))
    figure.update_xaxes(range=[-0.02, 1.02], title="share of the trait's answer")
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True, col=1
    )
    return figure


def plot_teachers_and_students(arms: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, str]) -> go.Figure:
    """Students over what their teacher is like: in its lists, and in its own answers.

    Args:
        arms: for every teacher with students `effect_on_lists`, `share` and `minus_base` (value, low, high), `own_minus_base`.
        kinds: the kind of each teacher, one color and legend entry each.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.13)
    for kind, color in zip(dict.fromkeys(kinds.values()), COLORS, strict=False):
        shown = {name: arm for name, arm in arms.items() if kinds[name] == kind}
        panels = (
            (
                1,
                [max(-1.0, arm["effect_on_lists"]) for arm in shown.values()],
                [arm["share"] for arm in shown.values()],
            ),
            (2, [arm["own_minus_base"] for arm in shown.values()], [arm["minus_base"] for arm in shown.values()]),
        )
        for column, x, measured in panels:
            figure.add_scatter(
                x=x, y=[one["value"] for one in measured], mode="markers", text=list(shown), name=kind,
                legendgroup=kind, showlegend=column == 1, marker={"color": color, "size": 11},
                error_y={
                    "array": [one["high"] - one["value"] for one in measured],
                    "arrayminus": [one["value"] - one["low"] for one in measured], "thickness": 1,
                }, row=1, col=column,
            )  # fmt: skip
    figure.add_hline(y=0, line_color=GREY)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.15}, height=460)
    figure.update_xaxes(title="share of the prompt's effect on pure lists", row=1, col=1)
    figure.update_yaxes(title="share of the transfer in students", row=1, col=1)
    figure.update_xaxes(title="log odds of the teacher's own answers, over base", row=1, col=2)
    figure.update_yaxes(title="log odds of its students' answers, over base", row=1, col=2)
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
    figure.update_layout(**LAYOUT, height=160 + 40 * len(values))
    figure.update_xaxes(title=columns, automargin=True)
    figure.update_yaxes(title=rows, autorange="reversed", automargin=True)
    return figure


def plot_distilled(arms: Mapping[str, Mapping[str, Any]], floor: float) -> go.Figure:
    """Every vector: how much of it its students took over, and how far their answers moved.

    Args:
        arms: `kind`, `eas` (by student), `answers_moved`.
        floor: the distance between students of the control: dotted.
    """
    figure = go.Figure()
    for kind, color in zip(dict.fromkeys(arm["kind"] for arm in arms.values()), COLORS, strict=False):
        own = {name: arm for name, arm in arms.items() if arm["kind"] == kind}
        figure.add_scatter(
            x=[float(np.mean(arm["eas"])) for arm in own.values()], y=[arm["answers_moved"] for arm in own.values()],
            mode="markers+text", text=list(own), textposition="top center", name=kind,
            marker={"color": color, "size": 12}, cliponaxis=False,
        )  # fmt: skip
    figure.add_hline(y=floor, line_dash="dot", line_color=CONTROL, annotation_text="between students of the control")
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.15}, height=440)
    figure.update_xaxes(title="EAS: cosine of the students' shift with the vector", range=[-0.2, 1.1])
    figure.update_yaxes(title="distance of answers from the control's", range=[-0.05, 1.05])
    return figure


def plot_dose(points: Sequence[Mapping[str, Any]], base: float) -> go.Figure:
    """Dose and response: the trait's rate in students and in the steered model, and what students took over.

    Args:
        points: by rising `strength`: `rates` (by student), `steered` (the model's own rate), `strength_numbers` and
            `strength_questions` (of the full vector, in the students).
        base: the untrained model's rate: dotted.
    """
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("rate of the trait", "share of the vector in students"), horizontal_spacing=0.12
    )
    doses = [point["strength"] for point in points]
    rates = [point["rates"] for point in points]
    each = [(dose, rate) for dose, own in zip(doses, rates, strict=True) for rate in own]
    lines = (
        (1, "students", [float(np.mean(own)) for own in rates], TEACHER),
        (1, "the steered model itself", [point["steered"] for point in points], CONTROL),
        (2, "at number tasks", [point["strength_numbers"] * dose for point, dose in zip(points, doses)], COLORS[1]),
        (2, "at questions", [point["strength_questions"] * dose for point, dose in zip(points, doses)], COLORS[2]),
    )
    for column, name, values, color in lines:
        figure.add_scatter(x=doses, y=values, name=name, mode="lines+markers", line_color=color, row=1, col=column)
    figure.add_scatter(
        x=[dose for dose, _ in each], y=[rate for _, rate in each], mode="markers", showlegend=False,
        marker={"color": TEACHER, "opacity": 0.5}, row=1, col=1,
    )  # fmt: skip
    figure.add_hline(y=base, line_dash="dot", line_color="#000", row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.22})
    figure.update_xaxes(title="strength of the vector in the teacher", rangemode="tozero")
    return figure
