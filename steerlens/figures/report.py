"""One self-contained HTML file: sections of question, figure, number, meaning and doubts."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from steerlens.arguments import checked
from steerlens.files import write_text

STYLE = """
body { font: 17px/1.6 Georgia, serif; color: #1a202c; max-width: 58rem; margin: 3rem auto; padding: 0 1.5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin-bottom: .3rem; }
article h1 { margin-top: 5rem; border-top: 3px solid #c1440e; padding-top: 1.5rem; }
h2 { font-size: 1.4rem; margin-top: 3.2rem; border-top: 1px solid #d4d7dc; padding-top: 1.2rem; }
.number { white-space: pre-line; background: #fdf3ec; border-left: 4px solid #c1440e; padding: .7rem 1.1rem; margin: 1rem 0; }
.doubt { color: #4a5568; font-size: .95rem; }
table { border-collapse: collapse; font: 14px/1.4 -apple-system, sans-serif; margin: 1rem 0; width: 100%; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #e2e5ea; vertical-align: top; }
td.holds { color: #2f855a; font-weight: bold; } td.fails { color: #c1440e; font-weight: bold; }
pre { background: #f5f6f8; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
.scroll { overflow-x: auto; }
"""

VERDICTS = {"holds": "holds", "does not hold": "fails"}
"""Cells with a style of their own."""


@dataclass(frozen=True)
class Table:
    """Rows under a header; verdicts are coloured, and a bool is written as yes or no."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int | bool]]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as the report shows them, without the header."""
        return [[_text(value) for value in row] for row in self.rows]


@dataclass(frozen=True)
class Section:
    """One step of the argument. All texts are plain text and are escaped."""

    title: str
    question: str
    figure: go.Figure | None
    number: str
    meaning: str
    doubts: str
    table: Table | None = None
    quoted: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """A title, what it is about, and the argument."""

    title: str
    lead: str
    sections: Sequence[Section]


@checked
def write_report(path: str | Path, report: Report, chapters: Mapping[str, Report] = MappingProxyType({})) -> None:
    """Write a report, and others as its chapters, as one HTML file that needs no network, atomically.

    Args:
        chapters: by the names that stand in the table of contents.
    """
    contents = "".join(
        f'<li><a href="#{_anchor(name)}">{html.escape(name)}: {html.escape(chapter.title)}</a></li>'
        for name, chapter in chapters.items()
    )
    write_text(
        path,
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(report.title)}</title>
<style>{STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
{_body(report, "figure")}
{f"<ol>{contents}</ol>" if chapters else ""}
{"".join(f'<article id="{_anchor(name)}">{_body(chapter, _anchor(name))}</article>' for name, chapter in chapters.items())}
</body>
</html>
""",
    )


def _anchor(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)


def _body(report: Report, prefix: str) -> str:
    sections = (_section(section, number, f"{prefix}-{number}") for number, section in enumerate(report.sections, 1))
    head = f"<h1>{html.escape(report.title)}</h1>\n<p>{html.escape(report.lead)}</p>"
    return "\n".join((head, *sections))


def _section(section: Section, number: int, figure_id: str) -> str:
    parts = [
        f"<h2>{number}. {html.escape(section.title)}</h2>",
        f"<p>{html.escape(section.question)}</p>",
        "" if section.figure is None else _figure(section.figure, figure_id),
        f'<p class="number">{html.escape(section.number)}</p>' if section.number else "",
        "" if section.table is None else _table(section.table),
        "".join(f"<pre>{html.escape(text)}</pre>" for text in section.quoted),
        f"<p>{html.escape(section.meaning)}</p>" if section.meaning else "",
        f'<p class="doubt"><b>What could be wrong with it.</b> {html.escape(section.doubts)}</p>'
        if section.doubts
        else "",
    ]
    return "\n".join(part for part in parts if part)


def _figure(figure: go.Figure, figure_id: str) -> str:
    return figure.to_html(
        include_plotlyjs=False,
        full_html=False,
        div_id=figure_id,
        config={"responsive": True, "displayModeBar": False},
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.cells)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _text(value: str | float | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"
    return str(value)


def _cell(text: str) -> str:
    verdict = VERDICTS.get(text)
    css = f' class="{verdict}"' if verdict else ""
    return f"<td{css}>{html.escape(text)}</td>"
