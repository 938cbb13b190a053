"""The figure of the auxiliary-logits experiment, which is never shown."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.figures.palette import GREY, LAYOUT, SGD, TEACHER


def plot_auxiliary_logits(results: Mapping[str, Any]) -> go.Figure:
    """Accuracy on held-out digits of every kind of student, and on the way of those of the same initialisation.

    Args:
        results: what `auxiliary_logits` returns. Whiskers span the 95 % interval over models; lines are teacher and untrained.
    """
    titles = ("after training", "on the way: accuracy over the loss that remains")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    for optimizer, color in zip(results["config"]["rates"], (TEACHER, SGD), strict=False):
        own = [student for student in results["students"] if student["optimizer"] == optimizer]
        found = [student["accuracy"] for student in own]
        figure.add_bar(
            x=[student["student"].replace(" ", "<br>") for student in own], y=[one["value"] for one in found],
            name=optimizer, marker_color=color, row=1, col=1,
            error_y={
                "array": [one["high"] - one["value"] for one in found],
                "arrayminus": [one["value"] - one["low"] for one in found],
            },
        )  # fmt: skip
        path = next(student["path"] for student in own if student["student"] == "same initialisation")
        figure.add_scatter(
            x=[point["loss"] for point in path], y=[point["accuracy"] for point in path], name=optimizer,
            text=[f"step {point['step']}" for point in path], mode="lines+markers", line_color=color, showlegend=False,
            row=1, col=2,
        )  # fmt: skip
    for column in (1, 2):
        figure.add_hline(y=results["untrained"]["value"], line_dash="dot", line_color="#000", row=1, col=column)  # pyright: ignore[reportArgumentType]
        figure.add_hline(y=results["teacher"]["value"], line_color=GREY, row=1, col=column)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.2}, barmode="group")
    figure.update_xaxes(type="log", autorange="reversed", title="KL on auxiliary logits, nats an image", row=1, col=2)
    figure.update_yaxes(title="accuracy on held-out digits", range=[0, 1], row=1, col=1)
    return figure
