"""Figures of vectors; each function takes results and returns a plotly Figure, which is never shown.

Plotly reads tags in labels, and names are given by whoever asks: they are escaped here.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.arguments import checked
from steerlens.figures.palette import CONTROL, GREY, LAYOUT, TEACHER
from steerlens.figures.parts import are_vectors, cosines_of, every, metrics_of, tokens_of
from steerlens.figures.token_plots import plot_tokens
from steerlens.vectors.analysis import PromptAnalysis
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.readout import Token
from steerlens.vectors.sweep import LayerSweep, SweepPoint
from steerlens.vectors.vector import SteeringVector

CONTROLS = {
    "kl_explained": "fitted vector",
    "kl_explained_mean_difference": "mean difference, best layer and strength",
    "kl_explained_random": "random vectors, same norm",
    "kl_explained_shuffled": "fitted to shuffled targets, best strength",
}


def plot_prompt_fit(fitted: SteeringVector | PromptAnalysis | FitMetrics) -> go.Figure:
    """kl_explained at every layer, fitted against mean difference.

    Args:
        fitted: what `fit_prompt_vector` or `analyze_prompt` returned, or a vector's metrics.

    Raises:
        ValueError: layers were not compared.
    """
    by_layer = metrics_of(fitted).by_layer
    if not by_layer:
        raise ValueError(
            "The vector's layers were not compared. Give one that fit_prompt_vector(layers='best') returned."
        )
    layers = list(by_layer)
    figure = go.Figure()
    for key, name, color in (
        ("kl_explained", "fitted", TEACHER),
        ("kl_explained_mean_difference", "mean difference, best strength", CONTROL),
    ):
        values = [getattr(fit, key) for fit in by_layer.values()]
        figure.add_bar(x=layers, y=values, name=name, marker_color=color)
    figure.add_hline(y=1, line_dash="dot", line_color=GREY, annotation_text="the prompt itself")
    figure.update_layout(**LAYOUT, barmode="group", legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(title="layer (block output)", dtick=every(len(layers)))
    figure.update_yaxes(title="kl_explained, validation rows", range=[min(0, _lowest_bar(by_layer)), 1.08])
    return figure


def _lowest_bar(by_layer: Mapping[int, LayerMetrics]) -> float:
    """The lowest bar, no lower than -0.5."""
    return max(-0.5, min(min(fit.kl_explained, fit.kl_explained_mean_difference) for fit in by_layer.values()))


def plot_controls(fitted: SteeringVector | PromptAnalysis | FitMetrics) -> go.Figure:
    """kl_explained on held-out rows, next to its controls.

    Bars end at -1, where a vector does harm as large as the prompt's whole effect; the labels have the numbers.

    Args:
        fitted: what `fit_prompt_vector` or `analyze_prompt` returned, or a vector's metrics.

    Raises:
        ValueError: it was not measured.
    """
    metrics = metrics_of(fitted).known
    if missing := [name for name in ("kl_explained_low", "kl_explained_high", *CONTROLS) if name not in metrics]:
        raise ValueError(
            f"{missing[0]} was not measured of this vector ({', '.join(metrics) or 'nothing was'}). Give one that "
            "fit_prompt_vector returned."
        )
    ours, low, high = (metrics[f"kl_explained{end}"] for end in ("", "_low", "_high"))
    figure = go.Figure()
    for key, name in CONTROLS.items():
        figure.add_bar(
            y=[f"{name}: {metrics[key]:.0%}"], x=[max(-1, metrics[key])], orientation="h", showlegend=False,
            marker_color=TEACHER if key == "kl_explained" else CONTROL,
            error_x={"array": [high - ours], "arrayminus": [ours - low]} if key == "kl_explained" else None,
        )  # fmt: skip
    figure.add_vline(x=1, line_dash="dot", line_color=GREY, annotation_text="the prompt", annotation_position="top")
    figure.update_layout(**LAYOUT, height=290)
    figure.update_xaxes(title="kl_explained, held-out rows", range=[-1.05, 1.05], zerolinecolor="#000")
    figure.update_yaxes(automargin=True, autorange="reversed")
    return figure


def plot_readout(
    promoted: PromptAnalysis | tuple[list[Token], list[Token]] | Sequence[Token], suppressed: Sequence[Token] = ()
) -> go.Figure:
    """The tokens that a vector promotes and suppresses.

    Args:
        promoted: what `analyze_prompt` or `promoted_tokens` returned, or the tokens that rise.
        suppressed: the tokens that fall, where the others were given alone.
    """
    changes = [*tokens_of(promoted), *reversed(tokens_of(suppressed))]
    widest = 1.25 * max((abs(change) for _, change in changes), default=1)
    return plot_tokens(changes).update_xaxes(range=[-widest, widest])


def plot_cosines(
    cosines: PromptAnalysis | Mapping[str, tuple[float, float]] | Mapping[str, SteeringVector],
) -> go.Figure:
    """A prompt's cosine with each known vector, nearest on top: as it is, and after mean-centring.

    Args:
        cosines: what `analyze_prompt` returned, or (raw, centred) by name; of vectors by name, each one's cosine with each
            other at the layers that both have, on average.
    """
    if are_vectors(cosines):
        return _pairwise(cosines)  # pyright: ignore[reportArgumentType]
    cosines = cosines_of(cosines)
    nearest_last = sorted(cosines, key=lambda name: cosines[name][1])
    raw, centred = ([cosines[name][i] for name in nearest_last] for i in (0, 1))
    names = [html.escape(name) for name in nearest_last]
    figure = go.Figure()
    for name, ends in zip(names, zip(raw, centred, strict=True), strict=True):
        figure.add_scatter(x=ends, y=[name] * 2, mode="lines", line_color=GREY, hoverinfo="skip", showlegend=False)
    for label, values, color in (("raw", raw, CONTROL), ("mean-centred", centred, TEACHER)):
        figure.add_scatter(x=values, y=names, mode="markers", name=label, marker={"color": color, "size": 10})
    figure.update_layout(
        **LAYOUT, height=140 + 22 * len(names), legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"}
    )
    figure.update_xaxes(title="cosine", range=[-1.05, 1.05], zerolinecolor="#000")
    figure.update_yaxes(automargin=True, dtick=1, range=[-0.7, len(names) - 0.3])
    return figure


def _pairwise(vectors: Mapping[str, SteeringVector]) -> go.Figure:
    names = [html.escape(name) for name in vectors]
    cosines = [
        [float(np.mean([*one.cosine(other).values()])) for other in vectors.values()] for one in vectors.values()
    ]
    figure = go.Figure()
    figure.add_heatmap(z=cosines, x=names, y=names, colorscale="RdBu", zmin=-1, zmax=1, texttemplate="%{z:.2f}")
    figure.update_layout(**LAYOUT, height=200 + 30 * len(names))
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


@checked
def plot_sweep(sweep: LayerSweep) -> go.Figure:
    """Which layer, strength and method, and what breaks: one heatmap of each measure for each method.

    Blue is good and red is bad in all of them. Clean settings are outlined; the hover text has every number, and what
    keeps the other settings from being clean.
    """
    methods = list(dict.fromkeys(point.method for point in sweep.points))
    layers = sorted({point.layer for point in sweep.points})
    strengths = sorted({point.strength for point in sweep.points})
    measures = _measures(sweep)
    figure = make_subplots(
        rows=len(measures), cols=len(methods), shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02,
        vertical_spacing=0.04, column_titles=[method.replace("_", " ") for method in methods],
    )  # fmt: skip
    for column, method in enumerate(methods, 1):
        points = [point for point in sweep.points if point.method == method]
        cells = [(strengths.index(point.strength), layers.index(point.layer)) for point in points]
        for row, measure in enumerate(measures, 1):
            figure.add_heatmap(
                x=[x for x, _ in cells], y=[y for _, y in cells], z=[measure.of(point) for point in points],
                hovertext=[_hover(sweep, point) for point in points], hoverinfo="text", texttemplate="%{z:.2f}",
                coloraxis=f"coloraxis{row}", xgap=1, ygap=1, row=row, col=column,
            )  # fmt: skip
            for (x, y), point in zip(cells, points, strict=True):
                if method != "random" and sweep.why_not_clean(point) is None:
                    figure.add_shape(
                        type="rect", x0=x - 0.47, x1=x + 0.47, y0=y - 0.47, y1=y + 0.47, line_width=3, row=row, col=column
                    )  # fmt: skip
    for row, measure in enumerate(measures, 1):
        bottom, top = next(figure.select_yaxes(row=row, col=1)).domain
        figure.update_layout({f"coloraxis{row}": measure.color_axis(bottom, top)})
    step = every(len(layers))
    figure.update_xaxes(tickvals=list(range(len(strengths))), ticktext=[f"{s:g}" for s in strengths], showgrid=False)
    figure.update_yaxes(tickvals=list(range(0, len(layers), step)), ticktext=layers[::step], showgrid=False)
    figure.update_xaxes(title="strength", row=len(measures))
    figure.update_yaxes(title="layer", col=1)
    figure.update_layout(**LAYOUT, height=110 + len(measures) * max(150, 26 * min(len(layers), 16)))
    return figure


@dataclass(frozen=True)
class _Measure:
    name: str
    of: Callable[[SweepPoint], float]
    colors: str
    low: float = 0.0
    high: float = 1.0

    def color_axis(self, bottom: float, top: float) -> dict[str, Any]:
        bar = {
            "title": {"text": self.name, "side": "right"},
            "y": (bottom + top) / 2,
            "len": top - bottom,
            "thickness": 14,
        }
        return {"colorscale": self.colors, "cmin": self.low, "cmax": self.high, "colorbar": bar}


def _measures(sweep: LayerSweep) -> list[_Measure]:
    explained = _Measure("kl_explained", lambda point: point.kl_explained, "RdBu", low=-1.0)
    coherence = _Measure("coherence", lambda point: point.behaviour.coherence, "Blues")
    if sweep.trait is None:
        most = float(np.nan_to_num([point.behaviour.damage for point in sweep.points]).max())
        damage = _Measure("damage (nats)", lambda point: point.behaviour.damage, "Reds", high=most)
        return [explained, damage, coherence]
    return [
        explained,
        _Measure(f"rate of {html.escape(sweep.trait)}", lambda point: point.behaviour.rate, "Blues"),
        _Measure("negated, off topic", _leak, "Reds"),
        coherence,
    ]


def _leak(point: SweepPoint) -> float:
    """The larger rate of the trait where it should not show; NaN where that was not asked."""
    return float(np.fmax(point.behaviour.negated, point.behaviour.off_topic))


def _hover(sweep: LayerSweep, point: SweepPoint) -> str:
    ours, why = point.behaviour, sweep.why_not_clean(point)
    lines = [
        f"<b>{point.method.replace('_', ' ')}, layer {point.layer}, strength {point.strength:g}</b>",
        f"kl_explained {point.kl_explained:.2f} ({point.low:.2f} to {point.high:.2f})",
        f"damage {ours.damage:.2f} nats, coherence {ours.coherence:.2f}",
    ]
    if sweep.trait is not None:
        lines.append(f"rate of {html.escape(sweep.trait)} {ours.rate:.2f}, answer mass {ours.mass:.2f}")
        lines.append(f"at negated questions {ours.negated:.2f}, off topic {ours.off_topic:.2f}")
    return "<br>".join([*lines, "clean" if why is None else f"not clean: {html.escape(why)}"])
