"""What a run has left on disk, as one page: its vectors, students, projections and rows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import plotly.graph_objects as go
from safetensors import SafetensorError, safe_open

from steerlens.figures.palette import COLORS, LAYOUT
from steerlens.figures.plots import plot_gradient_projection, running_mean
from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.files import read_json
from steerlens.gradients.trace import GradientTrace
from steerlens.samples.sample_set import SampleSet
from steerlens.students.student import MARK
from steerlens.vectors.vector import FORMAT, SteeringVector

MOST_CURVES, MOST_ROWS, LONGEST = 24, 5, 400
"""Curves in a figure, rows shown of a file, and characters shown of a row."""

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class RunContents:
    """What was found under a run's directory, by path; `unread` are files that look like a run's and cannot be read."""

    directory: Path
    vectors: dict[str, SteeringVector]
    traces: dict[str, GradientTrace]
    students: dict[str, dict[str, Any]]
    rows: dict[str, SampleSet]
    reports: tuple[str, ...]
    unread: dict[str, str]

    def __str__(self) -> str:
        counts = {
            "vectors": self.vectors, "traces": self.traces, "students": self.students, "files of rows": self.rows,
            "reports": self.reports,
        }  # fmt: skip
        found = ", ".join(f"{len(things)} {name}" for name, things in counts.items() if things)
        return f"{self.directory}: {found}." + "".join(f"\n{name}: {why}" for name, why in self.unread.items())

    def save(self, path: str | Path) -> None:
        """Write the page, which needs no network, atomically."""
        sections = [section for make in (_vectors, _students, _traces) if (section := make(self)) is not None]
        write_report(path, Report(f"Run {self.directory.resolve().name}", str(self), [*sections, *_rows(self)]))


def read_run(directory: str | Path) -> RunContents:
    """Find vectors, traces, students, rows and reports under a directory, whatever wrote them there.

    Raises:
        FileNotFoundError: there is no such directory, or nothing of a run in it.
    """
    root = Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no directory {str(root)!r}. Give the directory of a run (its --out).")
    unread: dict[str, str] = {}

    def read(paths: Iterator[Path], reader: Callable[[Path], Thing]) -> dict[str, Thing]:
        things = {}
        for path in sorted(paths):
            name = str(path.relative_to(root))
            try:
                things[name] = reader(path)
            except (ValueError, OSError) as error:
                unread[name] = str(error)
        return things

    contents = RunContents(
        directory=root,
        vectors=read(_tensors(root, "vector"), SteeringVector.load),
        traces=read(_tensors(root, "trace"), GradientTrace.load),
        students=read(root.rglob(MARK), read_json),
        rows=read(root.rglob("*.jsonl"), SampleSet.load),
        reports=tuple(str(path.relative_to(root)) for path in sorted(root.rglob("report.html"))),
        unread=unread,
    )
    if not (contents.vectors or contents.traces or contents.students or contents.rows or contents.reports):
        raise FileNotFoundError(
            f"{root} has no vector, trace, student, row or report in it. Give the directory of a run (its --out)."
        )
    return contents


def _tensors(root: Path, kind: str) -> Iterator[Path]:
    """Safetensors files that hold a vector or a trace, told by their names and metadata alone."""
    for path in root.rglob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                is_vector = (file.metadata() or {}).get("format") == FORMAT
                is_trace = {"pull", "cosine", "norm", "layers"} <= set(file.keys())
        except (SafetensorError, OSError):
            continue
        if is_vector if kind == "vector" else is_trace:
            yield path


def _vectors(run: RunContents) -> Section | None:
    if not run.vectors:
        return None
    table = [
        (name, vector.source.words, ", ".join(f"{layer}: {norm:.2f}" for layer, norm in vector.norms.items()))
        for name, vector in run.vectors.items()
    ]
    return Section(
        title="Vectors",
        question="Which directions were found, and how long are they?",
        figure=None,
        number="",
        meaning="Norms are in units of the residual stream, at the output of each block, counted from 0.",
        doubts="",
        table=Table(("file", "made by", "norm at each layer"), table),
    )


def _students(run: RunContents) -> Section | None:
    if not run.students:
        return None
    figure = go.Figure()
    for (name, student), color in zip(run.students.items(), COLORS * MOST_CURVES, strict=False):
        if len(figure.data) < MOST_CURVES and student.get("losses"):  # pyright: ignore[reportArgumentType]
            figure.add_scatter(y=running_mean(np.array(student["losses"]), 15), name=_folder(name), line_color=color)
    figure.update_layout(**LAYOUT, xaxis_title="step", yaxis_title="loss, nats a token (mean over 15 steps)")
    table = [
        (_folder(name), student.get("base", ""), student.get("config", {}).get("optimizer", ""), _number(student, "loss"),
         _number(student, "heldout_loss"))
        for name, student in run.students.items()
    ]  # fmt: skip
    return Section(
        title="Students",
        question="How did training go?",
        figure=figure if figure.data else None,
        number="",
        meaning=f"The first {MOST_CURVES} are drawn." if len(run.students) > MOST_CURVES else "",
        doubts="",
        table=Table(("student", "base", "optimizer", "loss", "held-out loss"), table),
    )


def _traces(run: RunContents) -> Section | None:
    if not run.traces:
        return None
    shared = set.intersection(*(set(trace.layers) for trace in run.traces.values()))
    shown = {name: [trace] for name, trace in list(run.traces.items())[: len(COLORS)] if len(trace.pull)}
    layer = max(shared, key=lambda at: sum(_push(trace, at) for (trace,) in shown.values()), default=None)
    return Section(
        title="Projections",
        question="Do the gradients of training push toward the vector?",
        figure=None if layer is None or not shown else plot_gradient_projection(shown, layer=layer),
        number=f"Layer {layer}, where the push is strongest." if shown else "No step was recorded.",
        meaning="Positive is toward the vector.",
        doubts="",
    )


def _push(trace: GradientTrace, layer: int) -> float:
    return abs(float(trace.cumulative_pull[-1, trace.layers.index(layer)]))


def _rows(run: RunContents) -> Iterator[Section]:
    for name, samples in run.rows.items():
        source = samples.source
        made = "The file does not say how the rows were made." if source is None else ", ".join(
            f"{field.replace('_', ' ')} {value!r}" for field, value in vars(source).items() if value is not None
        )  # fmt: skip
        yield Section(
            title=f"Rows: {name}",
            question=f"{len(samples)} rows, of which the first {min(MOST_ROWS, len(samples))} are shown.",
            figure=None,
            number=made,
            meaning="",
            doubts="",
            quoted=[_quoted(sample.prompt, sample.completion) for sample in list(samples)[:MOST_ROWS]],
        )


def _quoted(prompt: Any, completion: Any) -> str:
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, indent=1)
    return "\n→ ".join(part if len(part) <= LONGEST else part[:LONGEST] + " ..." for part in (text, str(completion)))


def _folder(name: str) -> str:
    return str(Path(name).parent)


def _number(student: dict[str, Any], field: str) -> float | str:
    value = student.get(field)
    return value if isinstance(value, float) else ""
