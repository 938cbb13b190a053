"""What every experiment returns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steerlens.experiments.claims import Claim, tally
from steerlens.experiments.rates import Record
from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.files import write_json


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment found, as it stands in results.json and report.html.

    Args:
        claims: with their verdicts.
        measures: everything that was measured.
        report: the file.
        content: what is in it.
    """

    claims: tuple[Claim, ...]
    measures: dict[str, Any]
    report: Path
    content: Report


def claims_section(claims: Sequence[Claim]) -> Section:
    """The first section of a report: what was claimed, and what holds."""
    rows = [(claim.name, claim.statement, claim.measured, claim.threshold, claim.verdict) for claim in claims]
    return Section(
        title="What was claimed, and what holds",
        question=(
            "Each row is one step of the argument. Thresholds stand in the code; when some of them were set, development runs on "
            "the embedded model had been seen."
        ),
        figure=None,
        number=tally(claims),
        meaning="The sections below show where each number comes from.",
        doubts="Students of one small model, or of two, are not a sample of models.",
        table=Table(("claim", "statement", "measured", "threshold", ""), rows),
    )


def conclude(directory: Path, claims: Sequence[Claim], measures: dict[str, Any], report: Report) -> ExperimentResult:
    """Write results.json and report.html into `directory`."""
    write_json(directory / "results.json", {**measures, "claims": [asdict(claim) for claim in claims]})
    write_report(directory / "report.html", report)
    return ExperimentResult(tuple(claims), measures, directory / "report.html", report)


def experiment_report(
    *, title: str, lead: str, claims: Sequence[Claim], sections: Sequence[Section], students: Sequence[Record]
) -> Report:
    """The claims, the experiment's own sections, every student."""
    return Report(title, lead, [claims_section(claims), *sections, students_section(students)])


def students_section(students: Sequence[Record]) -> Section:
    """The last section of a report: every student of the run."""
    columns = ("name", "loss", "heldout_loss", "rate", "rate_prefixed", "mass", "mass_prefixed")
    return Section(
        title="Every student",
        question="All that were trained in this run. The held-out loss is that of its own teacher's rows.",
        figure=None,
        number="",
        meaning="",
        doubts="",
        table=Table(
            ("student", "loss", "held-out", "rate", "rate after numbers", "mass", "mass after numbers"),
            [tuple(student[column] for column in columns) for student in students],
        ),
    )
