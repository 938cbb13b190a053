"""Bars of tokens. Plotly reads tags in labels, and nobody vouches for what a model's tokens say: they are escaped here."""

import html
from collections.abc import Sequence

import plotly.graph_objects as go

from steerlens.audit.audit import AuditResult
from steerlens.figures.palette import LAYOUT, SGD, TEACHER
from steerlens.figures.parts import tokens_of
from steerlens.vectors.analysis import PromptAnalysis
from steerlens.vectors.readout import Token


def plot_tokens(
    tokens: PromptAnalysis | AuditResult | tuple[list[Token], list[Token]] | Sequence[Token | tuple[str, float]],
) -> go.Figure:
    """By how much a vector changes the logit of each token, read through the logit lens; the first token is on top.

    Args:
        tokens: what `promoted_tokens`, `analyze_prompt` or `audit_dataset` returned, or tokens with their changes.
    """
    if not (changes := tokens_of(tokens)):
        raise ValueError(
            "There are no tokens to plot. Give what promoted_tokens, analyze_prompt or audit_dataset returned."
        )
    figure = go.Figure()
    figure.add_bar(
        y=list(range(len(changes))), x=[change for _, change in changes], orientation="h",
        text=[html.escape(repr(token)) for token, _ in changes], textposition="outside", cliponaxis=False,
        marker_color=[TEACHER if change > 0 else SGD for _, change in changes],
        hovertemplate="%{text}: %{x:+.2f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(**LAYOUT, height=120 + 20 * len(changes))
    figure.update_xaxes(title="change of the logit (logit lens)", zerolinecolor="#000")
    figure.update_yaxes(showticklabels=False, autorange="reversed")
    return figure
