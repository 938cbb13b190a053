"""Figures of students and their training; each function takes results and returns a plotly Figure, which is never shown."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.arguments import checked
from steerlens.figures.palette import COLORS, CONTROL, GREY, LAYOUT, OTHER, TEACHER
from steerlens.figures.parts import the_layer, traces_of
from steerlens.gradients.pooled import PooledCosine
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace


@checked
def plot_gradient_projection(
    traces: GradientTrace | Mapping[str, GradientTrace | Sequence[GradientTrace]],
    *,
    layer: int | None = None,
    window: int = 15,
) -> go.Figure:
    """Pull on the vector over training: each step's mean cosine, and the push that has come together.

    Args:
        traces: a trace, or for every name in the legend one, or one a seed. Bands span the seeds.
        layer: may be left out where one was measured.
        window: steps of the running mean.

    Raises:
        ValueError: the layer was not measured.
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
    for (name, seeds), color in zip(traces_of(traces, GradientTrace).items(), COLORS, strict=False):
        index = the_layer(seeds[0].layers, layer, name)
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


@checked
def plot_steps(traces: StepTrace | Mapping[str, StepTrace], *, layer: int | None = None) -> go.Figure:
    """How far the measured steps have moved the residual stream along v in all: a color a trace, a dash a probe.

    Args:
        traces: what was measured of one training, or for every name in the legend of one.
        layer: may be left out where one was measured.

    Raises:
        ValueError: the layer was not measured.
    """
    figure = go.Figure()
    for (name, (trace, *_)), color in zip(traces_of(traces, StepTrace).items(), COLORS, strict=False):
        place = the_layer(trace.layers, layer, name)
        moved = trace.along[:, :, place].cumsum(0)  # [step probe]
        for probe, values, dash in zip(trace.probes, moved.T, cycle(("solid", "dash", "dot")), strict=False):
            figure.add_scatter(
                x=list(trace.steps), y=values.tolist(), name=f"{name}, at {probe}" if name else f"at {probe}", mode="lines",
                line={"color": color, "dash": dash},
            )  # fmt: skip
    figure.add_hline(y=0, line_color=GREY)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=f"moved along v{'' if layer is None else f' at layer {layer}'}, residual units")
    return figure


@checked
def plot_pooled_cosine(pooled: PooledCosine, *, layer: int | None = None) -> go.Figure:
    """The data's mean gradient and v, by the number of rows in the mean: median and central 95 % of the subsets, over nulls.

    Args:
        layer: may be left out where one was measured.

    Raises:
        ValueError: the layer was not measured.
    """
    index, figure = the_layer(pooled.layers, layer), go.Figure()
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
    figure.update_yaxes(title=f"cosine with v at layer {pooled.layers[index]}")
    return figure
