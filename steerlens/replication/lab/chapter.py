"""The report of an experiment: prose with slots, filled with what was measured, and its figures and tables.

A template is Markdown. It begins with a title and a lead. A list `- claim: statement` says what is claimed. Each section begins
with `## key: title` and a question; paragraphs that begin with **Found.**, **Meaning.** and **Doubts.** follow. `{slot}` stands
for a measured value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import steerlens as sl
from steerlens.replication.lab.claims import Claim, tally

PROSE = Path(__file__).parents[1] / "prose"
PARTS = {"**Found.**": "number", "**Meaning.**": "meaning", "**Doubts.**": "doubts"}


@dataclass(frozen=True)
class Exhibit:
    """What a section shows beside its words."""

    figure: Any = None
    table: sl.Table | None = None
    quoted: Sequence[str] = ()


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Args:
        claims: with their verdicts.
        measures: a frozen dataclass of everything that was measured.
        chapter: its report.
    """

    claims: Sequence[Claim]
    measures: Any
    chapter: sl.Report


def conclude(
    template: str | Path,
    claims: Sequence[Claim],
    measures: Any,
    *,
    slots: Mapping[str, Any],
    exhibits: Mapping[str, Exhibit],
    students: Mapping[Any, Sequence[sl.StudentRecord]] | None = None,
) -> Findings:
    """The claims with their statements, and a report of them, of the template's sections and of all students.

    Args:
        template: a file of `prose/` by its name, or the path of another.
        slots: values by the names of the slots.
        exhibits: by the keys of the sections.
        students: every group that was trained.

    Raises:
        ValueError: a slot has no value, a claim no statement, or an exhibit no section.
    """
    path = template if isinstance(template, Path) else PROSE / f"{template}.md"
    head, *parts = path.read_text(encoding="utf-8").split("\n## ")
    title, _, body = head.removeprefix("# ").partition("\n")
    lead, _, listed = body.partition("\n- ")
    statements = dict(line.split(": ", 1) for line in f"{listed.strip()}".split("\n- ") if line)
    stated = tuple(
        replace(claim, statement=_filled(_of(statements, claim.name, path), slots, path)) for claim in claims
    )
    sections, left = [], dict(exhibits)
    for part in parts:
        heading, _, text = part.partition("\n")
        key, _, name = heading.partition(": ")
        sections.append(_section(name, text, slots, left.pop(key, Exhibit()), path))
    if left:
        raise ValueError(f"{path} has no section for {', '.join(left)}. Its sections begin with '## key: title'.")
    every = [] if students is None else [_students(students)]
    chapter = sl.Report(
        _filled(title, slots, path), _filled(lead, slots, path), [claims_section(stated), *sections, *every]
    )
    return Findings(stated, measures, chapter)


def _of(statements: Mapping[str, str], claim: str, path: Path) -> str:
    if claim not in statements:
        raise ValueError(
            f"{path} does not say what is claimed by {claim!r}. Add a line '- {claim}: statement' below the lead."
        )
    return statements[claim]


def _section(title: str, body: str, slots: Mapping[str, Any], exhibit: Exhibit, path: Path) -> sl.Section:
    texts = {"question": "", "number": "", "meaning": "", "doubts": ""}
    for paragraph in body.strip().split("\n\n"):
        mark = next((mark for mark in PARTS if paragraph.startswith(mark)), "")
        texts[PARTS.get(mark, "question")] = _filled(paragraph.removeprefix(mark), slots, path)
    return sl.Section(
        title=_filled(title, slots, path),
        figure=exhibit.figure,
        table=exhibit.table,
        quoted=exhibit.quoted,
        **texts,
    )


def _filled(text: str, slots: Mapping[str, Any], path: Path) -> str:
    """The text with its slots filled. Its own line breaks are spaces; what is in a slot keeps its lines."""
    try:
        return " ".join(text.split()).format_map(slots)
    except KeyError as error:
        raise ValueError(
            f"{path} has the slot {error}, for which there is no value. There are: {', '.join(slots)}."
        ) from error


def claims_section(claims: Sequence[Claim]) -> sl.Section:
    """The first section of a report: what was claimed, and what holds."""
    rows = [(claim.name, claim.statement, claim.measured, claim.threshold, claim.verdict) for claim in claims]
    return sl.Section(
        title="What was claimed, and what holds",
        question=(
            "Each row is one step of the argument. Thresholds stand in the code; when some of them were set, development runs on "
            "the embedded model had been seen."
        ),
        figure=None,
        number=tally(claims),
        meaning="The sections below show where each number comes from.",
        doubts="Students of one small model, or of two, are not a sample of models.",
        table=sl.Table(("claim", "statement", "measured", "threshold", ""), rows),
    )


def _students(groups: Mapping[Any, Sequence[sl.StudentRecord]]) -> sl.Section:
    """The last section of a report: every student of the run, the ones that failed included."""
    rows = []
    for group in groups.values():
        for one in group:
            asked = ["", "", "", ""]
            if one.bare is not None and one.after_numbers is not None:
                asked = [one.bare.rate, one.after_numbers.rate, one.bare.mass, one.after_numbers.mass]
            rows.append((one.name, f"{one.train.learning_rate:g}", one.loss, one.heldout_loss, *asked))
    header = ("student", "rate of learning", "loss", "held-out", "rate", "after numbers", "mass", "after numbers")
    return sl.Section(
        title="Every student",
        question="All that were trained in this run, the ones that failed included. Losses are in nats a token.",
        figure=None, number="", meaning="", doubts="", table=sl.Table(header, rows),
    )  # fmt: skip
