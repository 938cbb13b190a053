"""Figures of an audit; each function takes results and returns a plotly Figure, which is never shown.

Names come from data that nobody vouches for, and plotly reads tags in labels: they are escaped here.
"""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from steerlens.arguments import checked
from steerlens.audit.audit import AuditResult
from steerlens.audit.hygiene import Hygiene
from steerlens.audit.row_scores import RowScores, Score
from steerlens.checks import WrongInput, several, shown
from steerlens.figures.palette import CONTROL, GREY, LAYOUT, SGD, TEACHER
from steerlens.figures.parts import every

LEGEND = {"orientation": "h", "y": 1.0, "yanchor": "bottom"}
AXES: dict[Score, str] = {
    "log_linear": "change of log-probability under the vector, nats a token",
    "projection": "projection on the vector, above that of the model's own answer",
}


@checked
def plot_gain(result: AuditResult) -> go.Figure:
    """The gain on held-out rows, among those where rows and clean rows are swapped at random."""
    figure = go.Figure()
    figure.add_histogram(x=list(result.null_gains), name="swapped at random", marker_color=CONTROL, nbinsx=30)
    figure.add_vline(x=result.gain, line_color=TEACHER, line_width=3, annotation_text="these rows")
    figure.update_layout(**LAYOUT, height=320, showlegend=True, legend=LEGEND)
    figure.update_xaxes(title="gain on held-out rows, nats a completion token")
    figure.update_yaxes(title="number of swaps")
    return figure


@checked
def plot_gain_by_layer(result: AuditResult) -> go.Figure:
    """The gain of a vector recovered at each layer; the chosen one stands out."""
    figure = go.Figure()
    colors = [TEACHER if layer == result.layer else CONTROL for layer in result.layers]
    figure.add_bar(x=list(result.layers), y=list(result.gains_by_layer), marker_color=colors)
    figure.update_layout(**LAYOUT, height=300)
    figure.update_xaxes(title="layer (block output)", dtick=every(len(result.layers)))
    figure.update_yaxes(title="gain, nats a completion token")
    return figure


def plot_traits(
    traits: AuditResult | Sequence[tuple[str, float, float]],
    *,
    names: tuple[str, str] = ("the model as it is", "under the vector"),
) -> go.Figure:
    """How often the model answers with each trait, as it is and under the vector; the largest rise on top.

    Args:
        traits: what `audit_dataset` returned, or (name, rate under the vector, base rate) of each.
        names: of the two in the legend, the base first.

    Raises:
        ValueError: the audit asked for no traits, as nothing stood out.
    """
    traits = (
        traits.traits
        if isinstance(traits, AuditResult)
        else several(traits, "traits", "triples", '[("owl", 0.6, 0.02)]')
    )
    if not traits:
        raise ValueError(
            "The audit has no traits: where rows do not stand out, none is asked for. There is nothing to plot."
        )
    if wrong := [
        trait for trait in traits if isinstance(trait, str) or not isinstance(trait, Sequence) or len(trait) != 3
    ]:
        raise WrongInput(f"traits has {shown(wrong[0])} in it. Write (name, rate under the vector, base rate).")
    answers = [html.escape(name) for name, _, _ in traits]
    figure = go.Figure()
    for name, (_, steered, base) in zip(answers, traits, strict=True):
        figure.add_scatter(
            x=[base, steered], y=[name] * 2, mode="lines", line_color=GREY, hoverinfo="skip", showlegend=False
        )
    for label, index, color in ((names[0], 2, CONTROL), (names[1], 1, TEACHER)):
        values = [trait[index] for trait in traits]
        figure.add_scatter(x=values, y=answers, mode="markers", name=label, marker={"color": color, "size": 10})
    figure.update_layout(**LAYOUT, height=140 + 24 * len(traits), legend=LEGEND)
    figure.update_xaxes(title="rate of the trait's answer at its questions", rangemode="tozero")
    figure.update_yaxes(automargin=True, dtick=1, autorange="reversed")
    return figure


def plot_entropy(hygiene: Hygiene) -> go.Figure:
    """Entropy of the tokens at each position, next to the reference and to what so many rows can show at most."""
    figure = go.Figure()
    mine = hygiene.rows.by_position
    figure.add_scatter(y=[one.bits for one in mine], name="these rows", mode="lines+markers", line_color=TEACHER)
    if hygiene.reference is not None:
        theirs = [one.bits for one in hygiene.reference.by_position]
        figure.add_scatter(y=theirs, name="reference rows", mode="lines+markers", line_color=SGD)
    figure.add_scatter(
        y=[one.allowed for one in mine], name="most that so many rows can show", mode="lines",
        line={"color": GREY, "dash": "dot"},
    )  # fmt: skip
    figure.update_layout(**LAYOUT, height=360, legend=LEGEND)
    figure.update_xaxes(title="position in the completion, in tokens")
    figure.update_yaxes(title="entropy over rows, bits", rangemode="tozero")
    return figure


def plot_row_scores(scores: RowScores | AuditResult, score: Score = "log_linear") -> go.Figure:
    """The rows' scores among those of the placebo, as shares, in bins that both have in common.

    Args:
        scores: what `score_rows` or `audit_dataset` returned.

    Raises:
        WrongInput: something else.
    """
    scores = getattr(scores, "row_scores", scores)
    if not isinstance(scores, RowScores):
        raise WrongInput(f"scores must be what score_rows or audit_dataset returned, got {shown(scores)}.")
    rows, placebo = scores.of(score)
    low, high = np.quantile(np.concatenate([rows, placebo]), (0.002, 0.998))
    ends = np.linspace(low, high, 41)
    figure = go.Figure()
    for values, name, color in ((placebo, html.escape(scores.compared_with), CONTROL), (rows, "these rows", TEACHER)):
        counts = np.histogram(np.clip(values, ends[0], ends[-1]), ends)[0]
        figure.add_scatter(
            x=(ends[:-1] + ends[1:]) / 2, y=counts / len(values), name=name, mode="lines", line={"color": color, "shape": "hvh"},
            fill="tozeroy",
        )  # fmt: skip
    figure.update_layout(**LAYOUT, height=340, legend=LEGEND)
    figure.update_xaxes(title=AXES[score])
    figure.update_yaxes(title="share of rows", tickformat=".0%")
    return figure
