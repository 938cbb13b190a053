"""Figures of students: what they answer, and how much of the teacher's vector they hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlens.checks import WrongInput, several, shown, texts
from steerlens.evaluation import STILL_ANSWERS
from steerlens.figures.palette import COLORS, CONTROL, LAYOUT, TEACHER

CONTEXTS = {"bare": "bare question", "after_numbers": "question after a number list"}


@runtime_checkable
class Answering(Protocol):
    """What was asked in both contexts: what `ask` returns, or a `StudentRecord`."""

    @property
    def bare(self) -> Any:
        """Its `Answers` to bare questions."""
        ...

    @property
    def after_numbers(self) -> Any:
        """Its `Answers` behind number lists."""
        ...


@runtime_checkable
class Shifted(Protocol):
    """What was compared with a vector in two places, such as a `StudentRecord`."""

    @property
    def at_numbers(self) -> Any:
        """Its `Similarity` at number tasks."""
        ...

    @property
    def at_questions(self) -> Any:
        """Its `Similarity` at the trait's questions."""
        ...


def _members(groups: Any, kind: type, what: str) -> Mapping[str, Sequence[Any]]:
    """For each name its students, which were all asked, or compared."""
    if not isinstance(groups, Mapping):
        raise WrongInput(f"groups must map names to students, got {shown(groups)}. Write {{'a name': [record, ...]}}.")
    if not groups:
        raise ValueError("There are no groups to plot. Give at least one, {'a name': [record, ...]}.")
    for name, members in groups.items():
        several(members, f"groups[{name!r}]", "students", "[record, ...]")
        if wrong := [one for one in members if not isinstance(one, kind)]:
            raise WrongInput(
                f"groups[{name!r}] holds {shown(wrong[0])}, which was not {what}. Give records that train_grid made."
            )
    return groups


def _two_panels(titles: Iterable[str]) -> go.Figure:
    return make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=list(titles))


def plot_rates(
    groups: Mapping[str, Sequence[Answering]], base: Answering, *, controls: Sequence[str] = ()
) -> go.Figure:
    """The trait's rate by group in both contexts: one point a student, a bar at their mean. A cross no longer answers.

    Args:
        base: the untrained model: dotted.
        controls: groups that are drawn in grey.
    """
    groups, controls = _members(groups, Answering, "asked"), texts(controls, "controls", "controls=['a group']")
    if not isinstance(base, Answering):
        raise WrongInput(f"base must be what steerlens.ask returns of the untrained model, got {shown(base)}.")
    figure, names = _two_panels(CONTEXTS.values()), list(groups)
    for column, context in enumerate(CONTEXTS, 1):
        for row, (name, group) in enumerate(groups.items()):
            color = CONTROL if name in controls else TEACHER
            rates = [getattr(one, context).rate for one in group]
            symbols = ["x" if getattr(one, context).mass < STILL_ANSWERS else "circle" for one in group]
            figure.add_bar(
                x=[float(np.mean(rates))], y=[row], orientation="h", marker_color=color, opacity=0.25, width=0.7,
                hoverinfo="skip", row=1, col=column,
            )  # fmt: skip
            figure.add_scatter(
                x=rates, y=row + np.linspace(-0.2, 0.2, len(group)), mode="markers", name=name,
                marker={"color": color, "size": 9, "symbol": symbols}, row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=getattr(base, context).rate, line_dash="dot", row=1, col=column)  # pyright: ignore[reportArgumentType]
    figure.update_layout(**LAYOUT, showlegend=False, height=130 + 44 * len(names))
    figure.update_xaxes(range=[-0.02, 1.02], title="share of the trait's answer")
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, autorange="reversed", automargin=True, row=1, col=1
    )
    return figure


def plot_strengths(groups: Mapping[str, Sequence[Shifted]]) -> go.Figure:
    """How much of the vector each group of students holds, by layer, where they were trained and where they are asked."""
    groups = _members(groups, Shifted, "compared with a vector")
    panels = {"at_numbers": "at number tasks", "at_questions": "at the trait's bare questions"}
    figure = _two_panels(panels.values())
    for (name, group), color in zip(groups.items(), COLORS, strict=False):
        for column, where in enumerate(panels, 1):
            values = np.array([getattr(one, where).strength for one in group])  # [student layer]
            figure.add_bar(
                x=list(range(values.shape[1])), y=values.mean(0), name=name, marker_color=color, legendgroup=name,
                error_y={"array": values.max(0) - values.mean(0), "arrayminus": values.mean(0) - values.min(0)},
                showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_layout(**LAYOUT, barmode="group")
    figure.update_xaxes(title="layer (block output)")
    figure.update_yaxes(title="strength: ⟨v_student, v⟩ / ⟨v, v⟩", col=1)
    return figure
