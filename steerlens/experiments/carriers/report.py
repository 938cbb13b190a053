"""The report of the experiment on carriers: what else than number lists a trait passes through."""

from collections.abc import Sequence
from typing import Any

from steerlens.experiments.carriers.config import CarriersConfig
from steerlens.experiments.carriers.results import CONTROL, PROMPTED
from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Record, written
from steerlens.experiments.result import experiment_report
from steerlens.experiments.run import Run
from steerlens.figures.causal_plots import plot_conditions
from steerlens.figures.palette import TEACHER
from steerlens.figures.report import Report, Section, Table

LEAD = (
    "Number lists are the carrier of the papers on subliminal learning (arXiv 2507.14805, 2606.00995). {model} was taught to let "
    "a persona show in its lists, its preferences and its small talk, and in nothing else. Here the teacher prompted for "
    "'{trait}' writes each of these, and facts, where a persona was never at work; whatever names an animal is dropped."
)


def carriers_report(
    run: Run[CarriersConfig], claims: Sequence[Claim], measures: dict[str, Any], students: Sequence[Record]
) -> Report:
    """What was measured, as sections."""
    return experiment_report(
        title="Can anything but numbers carry a trait?",
        lead=LEAD.format(model=run.config.model, trait=run.config.trait),
        claims=claims,
        sections=[_carriers(measures, students)],
        students=students,
    )


def _carriers(measures: dict[str, Any], students: Sequence[Record]) -> Section:
    carriers = measures["carriers"]
    taught = [name for name, one in carriers.items() if one["transfer"] is not None]
    groups = {
        kind + name: [student for student in students if student["role"] == kind + name]
        for name in taught
        for kind in (PROMPTED, CONTROL)
    }
    return Section(
        title="What carries",
        question="Students of the prompted teacher's answers that name no animal, next to those of the unprompted one's.",
        figure=plot_conditions(groups, measures["base"], {PROMPTED + name: TEACHER for name in taught}),
        number="\n".join(_line(name, one) for name, one in carriers.items()),
        meaning=(
            "How far a prompt shows is KL(prompted || plain) a token of the kept rows, among tokens that are no animal. Log odds "
            "are those of students of prompted minus of unprompted rows, paired by seed, with their 95 % interval."
        ),
        doubts=(
            "Answers to few questions repeat themselves: the share of rows that are distinct says how much. Rows that look like "
            "the trait's own questions also change how those are answered at all, with and without prompt: read the control."
        ),
        table=Table(
            (
                "carrier",
                "kept",
                "distinct rows",
                "nats a token",
                "rate",
                "control's rate",
                "mass",
                "log odds",
                "after numbers",
            ),
            [_row(name, one) for name, one in carriers.items()],
        ),
        quoted=[measures["writers"][PROMPTED + name]["examples"][0] for name in carriers],
    )


def _line(name: str, one: Record) -> str:
    if one["transfer"] is None:
        return (
            f"{name}: no students, since only {one['kept_share']:.1%} of the prompted teacher's answers name no animal."
        )
    return (
        f"{name}: the prompt shows by {one['nats']:.3f} nats a token; rate {one['rate']:.3f} (control "
        f"{one['control']['rate']:.3f}), log odds {written(one['transfer'])}, after numbers "
        f"{written(one['transfer_prefixed'])}."
    )


def _row(name: str, one: Record) -> tuple[str | float, ...]:
    kept = f"{one['kept_share']:.1%}"
    if one["transfer"] is None:
        return name, kept, "", "", "", "", "", "", ""
    differences = (written(one[key]) for key in ("transfer", "transfer_prefixed"))
    return (
        name,
        kept,
        f"{one['distinct']:.0%}",
        one["nats"],
        one["rate"],
        one["control"]["rate"],
        one["mass"],
        *differences,
    )
