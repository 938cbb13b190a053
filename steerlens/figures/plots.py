"""Figures of students and their training; each function takes results and returns a plotly Figure, which is never shown."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.evaluation import STILL_ANSWERS
from steerlens.figures.palette import COLORS, CONTROL, GREY, LAYOUT, OTHER, TEACHER
from steerlens.gradients.pooled import PooledCosine
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace


def plot_gradient_projection(
    traces: Mapping[str, Sequence[GradientTrace]], *, layer: int, window: int = 15
) -> go.Figure:
    """Pull on the vector over training: each step's mean cosine, and the push that has come together.

    Args:
        traces: for every name in the legend, one trace a seed. Bands span the seeds.
        window: steps of the running mean.
    """
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=(
            "mean cosine of the descent direction with v",
            "cumulative pull, nats per unit of residual",
        ),
        horizontal_spacing=0.12,
    )
    for (name, seeds), color in zip(traces.items(), COLORS, strict=False):
        index = seeds[0].layers.index(layer)
        cosine = np.stack([running_mean(trace.cosine.nanmean(1)[:, index].numpy(), window) for trace in seeds])
        pull = np.stack([trace.cumulative_pull[:, index].numpy() for trace in seeds])
        for column, values in ((1, cosine), (2, pull)):
            add_seeds(figure, values, name, color, column)
    figure.add_hline(y=0, line_color=GREY, col=1, row=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.18})
    figure.update_xaxes(title="step")
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` steps; the ends average over what there is."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def add_seeds(
    figure: go.Figure, values: np.ndarray, name: str, color: str, column: int, steps: np.ndarray | None = None
) -> None:
    """The mean of [seed step] as a line, over the span of the seeds."""
    steps = np.arange(values.shape[1]) if steps is None else steps
    place = {"showlegend": column == 1, "row": 1, "col": column}
    _add_band(figure, steps, (values.min(0), values.mean(0), values.max(0)), name, color, **place)


def _add_band(
    figure: go.Figure, x: np.ndarray, curves: Sequence[np.ndarray], name: str, color: str, **place: Any
) -> None:
    """One line with a band around it; `curves` are low, middle and high."""
    low, middle, high = curves
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", fillcolor=color,
        opacity=0.18, line_width=0, mode="lines", hoverinfo="skip", legendgroup=name, **{**place, "showlegend": False},
    )  # fmt: skip
    figure.add_scatter(x=x, y=middle, name=name, line_color=color, legendgroup=name, **place)


def plot_steps(traces: Mapping[str, StepTrace], *, layer: int) -> go.Figure:
    """How far the measured steps have moved the residual stream along v in all: a color a trace, a dash a probe.

    Args:
        traces: for every name in the legend, what was measured of one training.

    Raises:
        ValueError: the layer was not measured.
    """
    figure = go.Figure()
    for (name, trace), color in zip(traces.items(), COLORS, strict=False):
        if layer not in trace.layers:
            raise ValueError(f"layer={layer} was not measured of {name!r}. Choose one of {trace.layers}.")
        moved = trace.along[:, :, trace.layers.index(layer)].cumsum(0)  # [step probe]
        for probe, values, dash in zip(trace.probes, moved.T, cycle(("solid", "dash", "dot")), strict=False):
            figure.add_scatter(
                x=list(trace.steps), y=values.tolist(), name=f"{name}, at {probe}", mode="lines",
                line={"color": color, "dash": dash},
            )  # fmt: skip
    figure.add_hline(y=0, line_color=GREY)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=f"moved along v at layer {layer}, residual units")
    return figure


def plot_pooled_cosine(pooled: PooledCosine, *, layer: int) -> go.Figure:
    """The data's mean gradient and v, by the number of rows in the mean: median and central 95 % of the subsets, over nulls.

    Raises:
        ValueError: the layer was not measured.
    """
    if layer not in pooled.layers:
        raise ValueError(f"layer={layer} was not measured. Choose one of {pooled.layers}.")
    index, figure = pooled.layers.index(layer), go.Figure()
    shown = (
        ("random directions", pooled.random, OTHER),
        ("teacher and control shuffled", pooled.shuffled, CONTROL),
        ("teacher minus control", pooled.observed, TEACHER),
    )
    for name, draws, color in shown:
        low, high = pooled.interval(draws)
        curves = [curve[:, index].numpy() for curve in (low, draws.quantile(0.5, dim=0), high)]
        _add_band(figure, np.array(pooled.sizes), curves, name, color)
    figure.add_hline(y=0, line_color=GREY)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.12, "traceorder": "reversed"})
    figure.update_xaxes(type="log", title="rows in each mean", tickvals=list(pooled.sizes))
    figure.update_yaxes(title=f"cosine with v at layer {layer}")
    return figure


def plot_similarity(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], floors: Mapping[str, float]
) -> go.Figure:
    """Empirical activation similarity, cos(v_student, v_teacher), over steps, above its floors."""
    figure = go.Figure()
    for (name, (steps, values)), color in zip(curves.items(), COLORS, strict=False):
        figure.add_scatter(x=list(steps), y=list(values), name=name, mode="lines+markers", line_color=color)
    for i, (name, value) in enumerate(floors.items()):
        figure.add_hline(
            y=value, line_dash="dot", line_color=CONTROL, annotation_text=name,
            annotation_position=("bottom right", "top left", "top right")[i % 3],
        )  # fmt: skip
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="EAS", range=[-0.4, 1.02])
    return figure


def plot_rates(groups: Mapping[str, Sequence[Mapping[str, Any]]], base: Mapping[str, float]) -> go.Figure:
    """Trait rates of every student by group, one point a student with its interval, in both contexts.

    Args:
        groups: for every group of students, their records (`rate`, `rate_low`, `rate_high`, `rate_prefixed`, `mass`).
        base: the untrained model's `rate` and `rate_prefixed`.
    """
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=("bare question", "question after a number list")
    )
    names = list(groups)
    for (name, records), color in zip(groups.items(), COLORS * 3, strict=False):
        broken = [record["mass"] < STILL_ANSWERS for record in records]
        symbols = ["x" if is_broken else "circle" for is_broken in broken]
        offsets = names.index(name) + np.linspace(-0.15, 0.15, len(records))
        rates = [record["rate"] for record in records]
        figure.add_scatter(
            x=offsets, y=rates, mode="markers", name=name, marker={"color": color, "size": 10, "symbol": symbols},
            error_y={
                "array": [record["rate_high"] - record["rate"] for record in records],
                "arrayminus": [record["rate"] - record["rate_low"] for record in records],
            },
            text=[record["name"] for record in records], row=1, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=offsets, y=[record["rate_prefixed"] for record in records], mode="markers", showlegend=False,
            marker={"color": color, "size": 10, "symbol": symbols}, text=[r["name"] for r in records], row=1, col=2,
        )  # fmt: skip
    for column, key in ((1, "rate"), (2, "rate_prefixed")):
        figure.add_hline(y=base[key], line_dash="dot", line_color="#000", col=column, row=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, showlegend=False, height=480)
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names, tickangle=-25)
    figure.update_yaxes(title="share of the trait's answer", range=[-0.02, 1.02], col=1)
    return figure


def plot_strengths(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> go.Figure:
    """How much of the teacher's vector each group's students hold, by layer, where they were trained and where they are asked.

    Args:
        groups: for every group of students, their records (`strength_numbers`, `strength_questions`, by layer).
    """
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=("at number tasks", "at the trait's bare questions")
    )
    for (name, records), color in zip(groups.items(), COLORS, strict=False):
        for column, key in ((1, "strength_numbers"), (2, "strength_questions")):
            values = np.array([record[key] for record in records])  # [student layer]
            figure.add_bar(
                x=list(range(values.shape[1])), y=values.mean(0), name=name, marker_color=color, legendgroup=name,
                error_y={"array": values.max(0) - values.mean(0), "arrayminus": values.mean(0) - values.min(0)},
                showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_layout(**LAYOUT, barmode="group", legend={"orientation": "h", "y": 1.2})
    figure.update_xaxes(title="layer (block output)", dtick=1)
    figure.update_yaxes(title="strength: ⟨v_student, v⟩ / ⟨v, v⟩", col=1)
    return figure


def plot_loss_matching(
    series: Mapping[str, Sequence[Mapping[str, Any]]], reference_loss: float, tolerance: float
) -> go.Figure:
    """Held-out loss and trait rate at every learning rate of every optimizer; broken models are crosses.

    Args:
        series: for every optimizer, its students' records, by rising learning rate.
        reference_loss: the loss to be matched, in nats a token; within `tolerance` a run counts as matched.
    """
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=("held-out loss", "trait rate, bare question"),
        horizontal_spacing=0.1,
    )
    for (name, records), color in zip(series.items(), COLORS, strict=False):
        symbols = ["x" if record["mass"] < STILL_ANSWERS else "circle" for record in records]
        rates = [record["learning_rate"] for record in records]
        for column, key in ((1, "heldout_loss"), (2, "rate")):
            figure.add_scatter(
                x=rates, y=[record[key] for record in records], name=name, mode="lines+markers",
                line_color=color, marker={"size": 9, "symbol": symbols}, legendgroup=name,
                showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    lowest = min(record["heldout_loss"] for records in series.values() for record in records)
    figure.add_hrect(
        y0=lowest - tolerance, y1=reference_loss + tolerance, fillcolor=TEACHER, opacity=0.1, line_width=0, row=1, col=1  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.18})
    figure.update_xaxes(type="log", title="peak learning rate")
    figure.update_yaxes(range=[lowest - 0.02, reference_loss + 0.25], col=1)
    return figure
