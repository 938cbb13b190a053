"""Figures of a finished model next to its base. Names come from files that nobody vouches for, and are escaped."""

import html

import plotly.graph_objects as go

from steerlens.arguments import checked
from steerlens.audit.model_diff import ModelDiff
from steerlens.figures.palette import CONTROL, LAYOUT, TEACHER
from steerlens.figures.parts import every

N_KNOWN = 12


@checked
def plot_known(result: ModelDiff) -> go.Figure:
    """Cosines of the shift with the known vectors, the closest on top.

    Raises:
        ValueError: no known vectors were compared.
    """
    if not result.known:
        raise ValueError(
            "The comparison has no known vectors. Give diff_models at least two vectors as known, or none."
        )
    names, cosines = zip(*result.known[:N_KNOWN], strict=True)
    figure = go.Figure()
    colors = [TEACHER, *[CONTROL] * (len(names) - 1)]
    figure.add_bar(x=list(cosines), y=[html.escape(name) for name in names], orientation="h", marker_color=colors)
    figure.update_layout(**LAYOUT, height=140 + 24 * len(names))
    figure.update_xaxes(title="cosine with the shift")
    figure.update_yaxes(automargin=True, dtick=1, autorange="reversed")
    return figure


@checked
def plot_shift(result: ModelDiff) -> go.Figure:
    """The norm of the mean shift at each layer; the layer of the fitted vector stands out."""
    norms = result.shift.norms
    chosen = result.fitted.layers if result.fitted else ()
    figure = go.Figure()
    figure.add_bar(
        x=list(norms), y=list(norms.values()), marker_color=[TEACHER if layer in chosen else CONTROL for layer in norms]
    )
    figure.update_layout(**LAYOUT, height=300)
    figure.update_xaxes(title="layer (block output)", dtick=every(len(norms)))
    figure.update_yaxes(title="norm of the mean shift", rangemode="tozero")
    return figure
