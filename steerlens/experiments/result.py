"""What every experiment returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.experiments.claims import Claim, Record
from steerlens.experiments.run import Run
from steerlens.figures.report import Section, Table, write_report


@dataclass(frozen=True)
class ExperimentResult:
    """Claims with their verdicts, everything that was measured (as in results.json), and where the report stands."""

    claims: tuple[Claim, ...]
    measures: dict[str, Any]
    report: Path


def claims_section(claims: Sequence[Claim]) -> Section:
    """The first section of a report: what was claimed, and what holds."""
    rows = [(claim.name, claim.statement, claim.measured, claim.threshold, claim.holds) for claim in claims]
    return Section(
        title="What was claimed, and what holds",
        question=(
            "Each row is one step of the argument. Thresholds stand in the code; when some of them were set, development runs on "
            "the embedded model had been seen."
        ),
        figure=None,
        number=f"{sum(claim.holds for claim in claims)} of {len(claims)} claims hold.",
        meaning="The sections below show where each number comes from.",
        doubts="Students of one small model, or of two, are not a sample of models.",
        table=Table(("claim", "statement", "measured", "threshold", ""), rows),
    )


def write_experiment_report(
    run: Run[Any],
    *,
    title: str,
    lead: str,
    claims: Sequence[Claim],
    sections: Sequence[Section],
    students: Sequence[Record],
) -> Path:
    """Write report.html: the claims, the experiment's own sections, every student; returns its path."""
    path = run.directory / "report.html"
    write_report(path, title=title, lead=lead, sections=[claims_section(claims), *sections, students_section(students)])
    return path


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
