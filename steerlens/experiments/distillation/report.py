"""The report of the experiment on distillation: what students take over from a steered teacher, and what it does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from steerlens.experiments.claims import Claim
from steerlens.experiments.distillation.config import DistillationConfig
from steerlens.experiments.rates import Record
from steerlens.experiments.result import experiment_report
from steerlens.experiments.run import Run
from steerlens.figures.causal_plots import plot_distilled, plot_dose, plot_matrix
from steerlens.figures.report import Report, Section, Table

LEAD = (
    "If training on lists installs whatever vector steered their author, it should do so for vectors without any meaning too: "
    "Gaussian ones, and rows of the unembedding. Only behaviour should depend on what a vector means. Here teachers on {model} "
    "have no prompt, only a vector at the output of block {layer}; their students learn from number lists alone "
    "(arXiv 2606.00995, section 5)."
)


def distillation_report(
    run: Run[DistillationConfig], claims: Sequence[Claim], measures: dict[str, Any], students: Sequence[Record]
) -> Report:
    """What was measured, as sections."""
    return experiment_report(
        title="Is any vector distilled?",
        lead=LEAD.format(model=run.config.model, layer=run.config.layer),
        claims=claims,
        sections=[
            _matrix(measures),
            _behaviour(measures),
            _dose(measures),
        ],
        students=students,
    )


def _full(measures: dict[str, Any]) -> dict[str, Any]:
    return {name: arm for name, arm in measures["arms"].items() if " x " not in name}


def _matrix(measures: dict[str, Any]) -> Section:
    sentences = [
        f"{name}: EAS {np.mean(arm['eas']):.2f} (students {min(arm['eas']):.2f} to {max(arm['eas']):.2f}), highest floor "
        f"{arm['highest_floor']:.2f}."
        for name, arm in _full(measures).items()
    ]
    silent = [name for name, writer in measures["writers"].items() if not writer["enough"]]
    if silent:
        sentences.append(f"Teachers that wrote too few lists, and have no students: {', '.join(silent)}.")
    return Section(
        title="Do students take over the vector that steered their teacher?",
        question=(
            "What training did to the students' residuals at number tasks, after the block where teachers were steered: with "
            "which vector does it go?"
        ),
        figure=plot_matrix(
            measures["cosines"],
            rows="students of the teacher with",
            columns="cosine of their shift with",
            title="cosine",
        ),
        number="\n".join(sentences),
        meaning=(
            "The diagonal is the empirical activation similarity. A column's other entries are its floors: what the same vector "
            "shares with students who never met it. The control's teacher had no vector."
        ),
        doubts=(
            "The mean shift is measured where students were trained, at the last token of number tasks. Vectors of two traits "
            "share what their prompts share."
        ),
    )


def _behaviour(measures: dict[str, Any]) -> Section:
    rows = []
    for name, arm in measures["arms"].items():
        vector, writer = measures["vectors"][name], measures["writers"][name]
        steered = vector["steered"]
        trait = f"{vector['trait']}: {steered['rate']:.3f}"
        rate = f"{np.mean(arm['rates']):.3f} ({min(arm['rates']):.3f} to {max(arm['rates']):.3f})"
        rows.append(
            (
                name,
                arm["kind"],
                f"{vector['norm'] * vector['strength']:.1f}",
                f"{writer['kept_share']:.2f}",
                trait,
                rate,
            )
        )
        rows[-1] = (*rows[-1], arm["answers_moved"], arm["mass"])
    return Section(
        title="Does behaviour pass only where the vector means something?",
        question=(
            "How far do the students' answers to bare questions move away from those of the control's students, and does the "
            "trait go up?"
        ),
        figure=plot_distilled(_full(measures), measures["answers_floor"]),
        number=(
            "\n".join(
                f"{name}: answers moved by {arm['answers_moved']:.3f}, rate of the trait over the control's students' "
                f"{arm['rate_over_control']:.1f}."
                for name, arm in _full(measures).items()
            )
            + f"\nBetween students of the control: {measures['answers_floor']:.3f}."
        ),
        meaning=(
            "The distance is the total variation between mean distributions over the possible answers: 0 the same, 1 disjoint. "
            "The table has next to each other what the vector does in the model itself and what its students do."
        ),
        doubts=(
            "Only this trait's kind of question is asked: a vector without a meaning there may have one elsewhere. One with a "
            "meaning is one that was fitted to a prompt; the distance counts any change of answers, wherever it goes."
        ),
        table=Table(
            ("vector", "kind", "norm", "lists kept", "steered model", "students' rate", "answers moved", "mass"), rows
        ),
    )


def _dose(measures: dict[str, Any]) -> Section:
    rise = measures["rise"]
    points = [
        measures["arms"][name]
        | {
            "strength": measures["vectors"][name]["strength"],
            "steered": measures["vectors"][name]["steered"]["rate"],
        }
        for name in measures["dose"]
    ]
    return Section(
        title="Dose and response",
        question=f"One vector ({measures['trait']}) at several strengths in the teacher: what do the students do?",
        figure=plot_dose(points, measures["base"]["rate"]),
        number=(
            "; ".join(
                f"strength {point['strength']:g}: students {np.mean(point['rates']):.3f}, steered model {point['steered']:.3f}, "
                f"EAS {np.mean(point['eas']):.2f}"
                for point in points
            )
            + f". Log odds at the highest minus at the lowest: {rise['value']:.2f} ({rise['low']:.2f} to {rise['high']:.2f})."
        ),
        meaning="The right panel has the students' shift along the vector as a share of the vector at strength 1.",
        doubts="Each strength has one data set; a stronger vector also changes which lists pass the filter.",
    )
