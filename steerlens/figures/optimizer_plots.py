"""Figures of the optimizer comparison; each function takes results and returns a plotly Figure, which is never shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.figures.palette import COLORS, CONTROL, GREY, LAYOUT, TEACHER
from steerlens.figures.plots import add_seeds, running_mean
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace

MANY_COLORS, DASHES = COLORS * 4, [dash for dash in ("solid", "dash", "dot", "dashdot") for _ in COLORS]
LEGEND_BELOW = {"orientation": "h", "y": -0.22}


def plot_loss_curves(
    runs: Sequence[Mapping[str, Any]], rates: Mapping[str, float | None], reference: float, tolerance: float
) -> go.Figure:
    """Held-out loss over the learning rate, one line an optimizer through the means of its seeds.

    Args:
        runs: rows of the table (`optimizer`, `learning_rate`, `heldout_loss`, `divergent`).
        rates: for every optimizer, the learning rate at which it is compared: a star. Divergent runs are crosses, at the
            upper edge where their loss is off the figure.
    """
    figure = go.Figure()
    sound = [run["heldout_loss"] for run in runs if not run["divergent"]]
    top = max(sound) + 0.15 * (max(sound) - min(sound) + tolerance)
    for (name, rate), color, dash in zip(rates.items(), MANY_COLORS, DASHES, strict=False):
        own = [run for run in runs if run["optimizer"] == name]
        means = _means([run for run in own if not run["divergent"]])
        figure.add_scatter(
            x=list(means), y=list(means.values()), name=name, mode="lines+markers", legendgroup=name,
            line={"color": color, "dash": dash},
        )  # fmt: skip
        broken = [run for run in own if run["divergent"]]
        figure.add_scatter(
            x=[run["learning_rate"] for run in broken], mode="markers", legendgroup=name, showlegend=False,
            y=[min(top, top if run["heldout_loss"] is None else run["heldout_loss"]) for run in broken],
            marker={"symbol": "x", "size": 9, "color": color}, name=f"{name}, divergent",
        )  # fmt: skip
        if rate in means:
            figure.add_scatter(
                x=[rate], y=[means[rate]], mode="markers", legendgroup=name, showlegend=False,
                marker={"symbol": "star", "size": 15, "color": color}, name=f"{name}, compared here",
            )  # fmt: skip
    figure.add_hrect(y0=reference - tolerance, y1=reference + tolerance, fillcolor=TEACHER, opacity=0.12, line_width=0)
    figure.update_layout(**LAYOUT, legend=LEGEND_BELOW, height=560)
    figure.update_xaxes(type="log", title="peak learning rate")
    figure.update_yaxes(title="held-out loss, nats a token")
    return figure


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[float, float]:
    """Mean held-out loss by rising learning rate."""
    rates = sorted({run["learning_rate"] for run in runs})
    return {
        rate: float(np.mean([run["heldout_loss"] for run in runs if run["learning_rate"] == rate])) for rate in rates
    }


def plot_projections(
    traces: Mapping[str, Sequence[GradientTrace]],
    steps: Mapping[str, Sequence[StepTrace]],
    *,
    layer: int,
    window: int = 15,
) -> go.Figure:
    """Where the gradient points next to where the step goes, each at number tasks and the step also at questions.

    Args:
        traces, steps: for every optimizer, one trace a seed. Bands span the seeds.
    """
    titles = ("the gradient points there:<br>mean cosine with v", "the step goes there:<br>along v, number tasks")
    figure = make_subplots(rows=1, cols=3, subplot_titles=(*titles, "the step goes there:<br>along v, questions"))
    for name, color in zip(traces, COLORS, strict=False):
        index = traces[name][0].layers.index(layer)
        cosine = [running_mean(trace.cosine.nanmean(1)[:, index].numpy(), window) for trace in traces[name]]
        add_seeds(figure, np.stack(cosine), name, color, 1)
        first = steps[name][0]
        for column, probe in ((2, "numbers"), (3, "questions")):
            along = [trace.along[:, first.probes.index(probe), index].numpy() for trace in steps[name]]
            add_seeds(figure, np.stack(along), name, color, column, np.array(first.steps))
    for column in (1, 2, 3):
        figure.add_hline(y=0, line_color=GREY, col=column, row=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, legend=LEGEND_BELOW).update_layout(margin_t=80)
    figure.update_xaxes(title="step")
    return figure


def plot_norm_tails(norms: Mapping[str, np.ndarray]) -> go.Figure:
    """Share of rows whose activation gradient is larger than so many times the median row's.

    Args:
        norms: for every optimizer, the norms of all rows at all steps; not-a-number is left out.
    """
    figure = go.Figure()
    shares = np.geomspace(0.5, 1e-4, 60)
    for (name, values), color in zip(norms.items(), COLORS, strict=False):
        given = values[~np.isnan(values)]
        figure.add_scatter(x=np.quantile(given, 1 - shares) / np.median(given), y=shares, name=name, line_color=color)
    gaussian = np.abs(np.random.default_rng(0).standard_normal((200_000, 1)))
    figure.add_scatter(
        x=np.quantile(gaussian, 1 - shares) / np.median(gaussian), y=shares, name="|Gaussian|",
        line={"color": CONTROL, "dash": "dot"},
    )  # fmt: skip
    figure.update_layout(**LAYOUT, legend=LEGEND_BELOW)
    figure.update_xaxes(title="norm, in medians")
    figure.update_yaxes(type="log", title="share of rows above")
    return figure


def plot_pooled(pooled: Mapping[str, Any], *, layer: int) -> go.Figure:
    """Cosine of the mean gradient's difference with v over the number of rows averaged, between its nulls.

    Args:
        pooled: `layers`, `sizes`, and for "observed", "shuffled" and "random" each `mean`, `low` and `high`, [size layer].
    """
    figure, index = go.Figure(), pooled["layers"].index(layer)
    sizes = list(pooled["sizes"])
    names = (("observed", TEACHER), ("shuffled", CONTROL), ("random", COLORS[1]))
    for name, color in names:
        mean, low, high = (np.array(pooled[name][key])[:, index] for key in ("mean", "low", "high"))
        figure.add_scatter(
            x=[*sizes, *sizes[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=color, opacity=0.18,
            line_width=0, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
        figure.add_scatter(x=sizes, y=mean, name=name, mode="lines+markers", line_color=color)
    figure.update_layout(**LAYOUT, legend=LEGEND_BELOW)
    figure.update_xaxes(type="log", title="rows averaged")
    figure.update_yaxes(title="cosine with v")
    return figure


def plot_differences(arms: Mapping[str, Mapping[str, Any]], title: str) -> go.Figure:
    """Differences in log odds of the trait, one line each, with intervals.

    Args:
        arms: by name, `bare` and `prefixed`, each with `value`, `low` and `high`.
        title: of the horizontal axis, which says minus what.
    """
    figure = go.Figure()
    names = list(arms)[::-1]
    for offset, (context, label) in zip((0.15, -0.15), (("bare", "bare"), ("prefixed", "after numbers")), strict=True):
        found = [arms[name][context] for name in names]
        figure.add_scatter(
            x=[one["value"] for one in found], y=[i + offset for i in range(len(names))], mode="markers", name=label,
            marker={"color": TEACHER if context == "bare" else CONTROL, "size": 10},
            error_x={
                "array": [one["high"] - one["value"] for one in found],
                "arrayminus": [one["value"] - one["low"] for one in found],
            },
        )  # fmt: skip
    figure.add_vline(x=0, line_color=GREY)
    figure.update_layout(**LAYOUT, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_layout(height=170 + 42 * len(names), margin_l=300)
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=names)
    figure.update_xaxes(title=title)
    return figure


def plot_rate_over_strength(runs: Sequence[Mapping[str, Any]], base: float) -> go.Figure:
    """Every run's rate over the strength with which it holds v at the questions, whatever the optimizer.

    Args:
        runs: rows of the table (`optimizer`, `learning_rate`, `strength_questions`, `rate`, `divergent`).
        base: the untrained model's rate.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(run["optimizer"] for run in runs))
    for name, color, dash in zip(names, MANY_COLORS, DASHES, strict=False):
        own = [run for run in runs if run["optimizer"] == name and not run["divergent"]]
        figure.add_scatter(
            x=[run["strength_questions"] for run in own], y=[run["rate"] for run in own], name=name, mode="markers",
            text=[f"{run['learning_rate']:.3g}" for run in own],
            marker={"color": color, "size": 9, "symbol": "circle" if dash == "solid" else "diamond-open"},
        )  # fmt: skip
    figure.add_hline(y=base, line_dash="dot", line_color="#000")
    figure.update_layout(**LAYOUT, legend=LEGEND_BELOW, height=520)
    figure.update_xaxes(title="strength of v at bare questions")
    figure.update_yaxes(type="log", title="rate of the trait, bare questions")
    return figure
