"""Sections of the optimizer report that read traces: where gradients and steps point, and how heavy the tails are."""

import numpy as np

from steerlens.experiments.optimizers.config import REFERENCE, OptimizersConfig
from steerlens.experiments.optimizers.results import group_of, matched_arms
from steerlens.experiments.rates import Record, mean_rate
from steerlens.experiments.run import Run
from steerlens.figures.optimizer_plots import plot_norm_tails, plot_projections
from steerlens.figures.plots import plot_strengths
from steerlens.figures.report import Section
from steerlens.files import read_json
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace

SHOWN = 5
"""Optimizers in the figures."""


def projections_section(run: Run[OptimizersConfig], results: Record) -> Section:
    """Gradient-projection curves next to what the steps do."""
    names, layer = _traced(results), results["deciding"]["layer"]
    students = {name: [row["name"] for row in _usable(results, name)] for name in names}
    traces = {name: [GradientTrace.load(run.trace_path(s)) for s in group] for name, group in students.items()}
    steps = {name: [StepTrace.load(run.steps_path(s)) for s in group] for name, group in students.items()}
    means = {name: _means_at(layer, traces[name], steps[name]) for name in names}
    return Section(
        title="Where the gradient points, and where the step goes",
        question=(
            "The optimizer rescales the gradient before it moves the weights. Does every optimizer see the same pull, and do "
            "their steps go along the vector at number tasks, and at the questions that no row contains?"
        ),
        figure=plot_projections(traces, steps, layer=layer),
        number="\n".join(
            f"{name}: mean cosine {cosine:.4f}, pull {pull:.2g}; a step goes {numbers:.2g} along v at number tasks and "
            f"{asked:.2g} at questions"
            for name, (cosine, pull, numbers, asked) in means.items()
        ),
        meaning=(
            "Left: the cosine of the descent direction with the vector, mean over rows. Middle and right: what one step does "
            "to the mean residual, projected on the vector. Where the left curves agree and the right ones do not, it is the "
            "step and not the gradient in which optimizers differ."
        ),
        doubts=(
            f"Layer {layer} alone, the one whose strength at questions goes with the rate (see below). Steps are measured at a "
            "dozen points; the last ones are small because the schedule ends at zero."
        ),
    )


def _means_at(layer: int, traces: list[GradientTrace], steps: list[StepTrace]) -> list[float]:
    """Mean cosine and pull, and mean step along v at number tasks and at questions."""
    index = traces[0].layers.index(layer)
    along = np.mean([step.along.mean(0)[:, index].numpy() for step in steps], axis=0)
    by_probe = dict(zip(steps[0].probes, along.tolist(), strict=True))
    gradients = [[trace.cosine.nanmean((0, 1))[index], trace.pull.nanmean((0, 1))[index]] for trace in traces]
    return [*np.mean(gradients, axis=0).tolist(), by_probe["numbers"], by_probe["questions"]]


def tails_section(run: Run[OptimizersConfig], results: Record) -> Section:
    """How heavy the tail of the rows' gradient norms is."""
    names, layer = _traced(results), results["layer"]
    norms, lines = {}, []
    for name in names:
        rows = _usable(results, name)
        traces = [GradientTrace.load(run.trace_path(row["name"])) for row in rows]
        norms[name] = np.concatenate([t.norm[:, :, t.layers.index(layer)].flatten().numpy() for t in traces])
        tail = {key: mean_rate(rows, key) for key in ("kurtosis", "gini", "top_share")}
        lines.append(
            f"{name}: kurtosis {tail['kurtosis']:.1f}, Gini {tail['gini']:.2f}, largest 1 % of rows hold {tail['top_share']:.1%}"
        )
    return Section(
        title="Are there outliers that could drown it?",
        question="The norms of the rows' activation gradients: how heavy is their tail?",
        figure=plot_norm_tails(norms),
        number="\n".join(lines),
        meaning=(
            "A Gaussian has a kurtosis of 3, equal norms have a Gini of 0, and without outliers the largest 1 % of rows hold "
            "little more than 1 % of the sum. The paper's account needs a heavy tail."
        ),
        doubts=(
            "Lists of numbers of one format, written by a small model, are cleaner than real teacher data. The arms with odd "
            "rows, with clipped rows and without outlier rows ask for the effect itself, where the run has them."
        ),
    )


def installed_section(run: Run[OptimizersConfig], results: Record) -> Section:
    """The vector's strength in the students, layer by layer."""
    names = _traced(results)
    groups = {
        name: [read_json(run.directory / "students" / row["name"] / "record.json") for row in _usable(results, name)]
        for name in names
    }
    lines = [
        f"{name}: "
        + ", ".join(f"{value:.2f}" for value in np.mean([r["strength_questions"] for r in records], axis=0))
        + " (EAS "
        + ", ".join(f"{value:.2f}" for value in np.mean([r["eas"] for r in records], axis=0))
        + ")"
        for name, records in groups.items()
    ]
    return Section(
        title="Where each optimizer installs the vector",
        question="The vector's strength in the students, where they were trained and where they are asked.",
        figure=plot_strengths(groups),
        number="Strength at questions, layer by layer.\n" + "\n".join(lines),
        meaning=(
            "Activation similarity is measured at number tasks, where every optimizer learns the vector. The trait is asked "
            "for elsewhere, and there the strengths part."
        ),
        doubts="A projection says how far the residual moved along the vector, not whether the rest of the move is harmless.",
    )


def _traced(results: Record) -> list[str]:
    """The arms in the figures of traces: the reference and plain SGD first, then the others that match."""
    names = matched_arms(results)
    plain = [name for name in ("sgd", "sgd, not clipped") if name in names]
    return list(dict.fromkeys([REFERENCE, *plain, *names]))[:SHOWN]


def _usable(results: Record, name: str) -> list[Record]:
    return [row for row in group_of(results, name) if not row["divergent"]]
