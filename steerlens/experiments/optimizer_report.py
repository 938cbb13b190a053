"""The report of the optimizer comparison: from raw gradients to what decides, each step with its doubts."""

from typing import Any

import numpy as np

from steerlens.experiments.claims import Record, mean_rate
from steerlens.experiments.optimizer_findings import against_the_paper
from steerlens.experiments.optimizer_results import group_of, matched_arms
from steerlens.experiments.optimizers_config import REFERENCE, OptimizersConfig
from steerlens.experiments.run import Run
from steerlens.figures.optimizer_plots import (
    plot_differences,
    plot_loss_curves,
    plot_norm_tails,
    plot_pooled,
    plot_projections,
    plot_rate_over_strength,
)
from steerlens.figures.plots import plot_strengths
from steerlens.figures.report import Section, Table, write_report
from steerlens.files import read_json
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace

SHOWN = 5
"""Optimizers in the figures of traces."""

LEAD = (
    "arXiv 2606.00995 (section 6) says that a trait passes only under adaptive optimizers: every activation gradient carries "
    "a small consistent component along the steering vector, rows with outlier gradients drown it, and Adam's division by "
    "each coordinate's size brings it out. This report takes that account apart on {model}: where gradients point, where "
    "steps go, how heavy the tails are, and what each optimizer does to the trait at the same held-out loss."
)


def write_optimizers_report(run: Run[OptimizersConfig], results: dict[str, Any]) -> None:
    """Write report.html from results.json, the students' records and their traces."""
    write_report(
        run.directory / "report.html",
        title="Does the optimizer decide whether the trait passes?",
        lead=LEAD.format(model=run.config.model),
        sections=[
            _answer(results),
            _raw_gradients(results),
            _curves(results),
            _differences(results),
            _projections(run, results),
            _tails(run, results),
            _installed(run, results),
            _what_decides(results),
            _runs(results),
        ],
    )


def _answer(results: Record) -> Section:
    arms, base = results["arms"], results["base"]
    rows = []
    for name, arm in sorted(arms.items(), key=lambda item: -(item[1].get("mean_rate") or 0)):
        difference = arm.get("bare")
        rows.append(
            (
                name,
                "none" if arm["rate"] is None else f"{arm['rate']:.3g}",
                "yes" if arm["matched"] else "not matched",
                f"{arm['divergent']} of {len(arm['students'])}",
                *(_digits(arm.get(f"mean_{key}")) for key in ("heldout_loss", "rate", "mass", "rate_prefixed")),
                "" if difference is None else _interval(difference),
            )
        )
    return Section(
        title="The answer in one table",
        question="Every optimizer at the learning rate at which its held-out loss is AdamW's. What is left of the trait?",
        figure=None,
        number="\n".join(against_the_paper(results)),
        meaning=(
            f"Means over seeds {', '.join(map(str, results['seeds']))}; the untrained model's rate is {base['rate']:.3f}. The "
            "last column is the difference in log odds to AdamW at bare questions, paired over seeds and questions. "
            '"Not matched": the search found no learning rate with AdamW\'s loss, and the closest run is shown.'
        ),
        doubts=(
            "One model, one trait, one data set. AdamW's learning rate, rank and trained maps were chosen on development runs "
            "for a high rate of the trait, which favours AdamW; its own curve below shows by how much."
        ),
        table=Table(
            (
                "optimizer",
                "learning rate",
                "same loss",
                "divergent",
                "held-out loss",
                "rate",
                "mass",
                "after numbers",
                "log odds",
            ),
            rows,
        ),
    )


def _raw_gradients(results: Record) -> Section:
    pooled, layer = results["pooled"], results["layer"]
    index = pooled["layers"].index(layer)
    first, last = (pooled["observed"]["mean"][i][index] for i in (0, -1))
    null = pooled["shuffled"]["high"][-1][index]
    return Section(
        title="Raw gradients: the vector is in the mean, not in the row",
        question=(
            "Before any training, each row's loss is differentiated with respect to the residual stream at the assistant tag. "
            "How does the mean over teacher rows, minus that over control rows, lie to the vector?"
        ),
        figure=plot_pooled(pooled, layer=layer),
        number=(
            f"Layer {layer}: cosine {first:.3f} for single rows, {last:.3f} for means of {pooled['sizes'][-1]} rows; upper end "
            f"of the interval with teacher and control rows relabelled at random: {null:.3f}."
        ),
        meaning=(
            "A small consistent component: one row's gradient is nearly all noise, the mean over many points along the "
            "vector. This part of the paper's account does not involve any optimizer."
        ),
        doubts="Bands are subsets of the same rows, drawn with replacement; they narrow faster than new rows would.",
    )


def _curves(results: Record) -> Section:
    arms = results["arms"]
    unmatched = [name for name, arm in arms.items() if not arm["matched"]]
    divergent = sum(run["divergent"] for run in results["runs"])
    return Section(
        title="The same loss: which learning rate gives it?",
        question=(
            "An optimizer that fails to train would not transfer either. Each one's learning rate is searched, by bisection "
            "between rates on both sides, until its held-out loss is AdamW's."
        ),
        figure=plot_loss_curves(
            results["runs"],
            {name: arm["rate"] for name, arm in arms.items()},
            results["reference"]["heldout_loss"],
            results["loss_tolerance"],
        ),
        number=(
            f"{len(arms) - len(unmatched)} of {len(arms)} optimizers reach {results['reference']['heldout_loss']:.4f} nats "
            f"within {results['loss_tolerance']:g}"
            + (f"; not matched: {', '.join(unmatched)}" if unmatched else "")
            + f". {divergent} of {len(results['runs'])} runs are divergent; untrained: {results['base']['heldout_loss']:.4f}."
        ),
        meaning=(
            "Stars: where optimizers are compared, the largest learning rate at which all seeds together have AdamW's loss "
            "and none diverges. Crosses: divergent runs, with less than half of the base's probability on possible answers, "
            "or a loss above the base's. They are never a match."
        ),
        doubts=(
            "What training gains on these rows is small next to the tolerance, so several learning rates of one optimizer "
            "match; taking the largest is a rule, and the loss does not single it out."
        ),
    )


def _differences(results: Record) -> Section:
    names = matched_arms(results)[1:]
    arms = {name: results["arms"][name] for name in names}
    lines = [
        f"{name}: {_interval(arm['bare'])} bare, {_interval(arm['prefixed'])} after numbers"
        for name, arm in arms.items()
    ]
    return Section(
        title="At the same loss, how much of the trait?",
        question="Log odds of the trait at the matched rate, each optimizer minus AdamW, paired over seeds and questions.",
        figure=plot_differences(arms) if arms else None,
        number="\n".join(lines) or "No optimizer reaches AdamW's loss.",
        meaning="Left of zero an optimizer installs less of the trait than AdamW, although it predicts the data as well.",
        doubts=(
            f"Intervals resample {len(results['seeds'])} seeds and the questions; so few seeds give intervals that are too "
            "narrow. Rates of AdamW itself differ between seeds by more than many of these differences."
        ),
    )


def _projections(run: Run[OptimizersConfig], results: Record) -> Section:
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


def _tails(run: Run[OptimizersConfig], results: Record) -> Section:
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


def _installed(run: Run[OptimizersConfig], results: Record) -> Section:
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


def _what_decides(results: Record) -> Section:
    found = results["deciding"]
    usable = [row for row in results["runs"] if not row["divergent"]]
    by_layer = ", ".join(f"{value:.2f}" for value in found["by_layer"])
    return Section(
        title="What decides",
        question=(
            "All runs of all optimizers and learning rates together: is it the optimizer, or how far it has carried the "
            "student along the vector at the questions?"
        ),
        figure=plot_rate_over_strength(
            [row | {"strength_questions": found["strengths"][row["name"]]} for row in usable], results["base"]["rate"]
        ),
        number=(
            f"Rank correlation over {len(usable)} runs of the rate with the strength at questions, layer by layer: "
            f"{by_layer} (shown: layer {found['layer']}); with the held-out loss: {found['loss']:.2f}."
        ),
        meaning=(
            "Where the points of different optimizers lie on one curve, an optimizer matters by how far along the vector it "
            "gets at the same loss, and not in another way. The arms that hold LoRA's A fixed, or give SGD Adam's frozen "
            "scales, say which part of Adam carries it there."
        ),
        doubts=(
            "The layer was chosen for its correlation, among a few. And a correlation over runs that differ in optimizer and "
            "learning rate is not an intervention on the strength."
        ),
    )


def _runs(results: Record) -> Section:
    header = (
        "student",
        "loss",
        "held-out",
        "rate",
        "mass",
        "EAS",
        "pull",
        "along v, numbers",
        "along v, questions",
        "",
    )
    keys = ("loss", "heldout_loss", "rate", "mass", "eas", "mean_pull", "along_numbers", "along_questions")
    rows = [(row["name"], *(_digits(row[key]) for key in keys), _state(row)) for row in results["runs"]]
    return Section(
        title="Every run",
        question="All that were trained, the divergent ones included.",
        figure=None,
        number="",
        meaning="runs.csv beside this report has all columns.",
        doubts="",
        table=Table(header, rows),
    )


def _state(row: Record) -> str:
    if row["divergent"]:
        return "divergent"
    return " ".join(word for word, holds in (("matched", row["matched"]), ("compared", row["compared"])) if holds)


def _traced(results: Record) -> list[str]:
    """The arms in the figures of traces: the reference and plain SGD first, then the others that match."""
    names = matched_arms(results)
    plain = [name for name in ("sgd", "sgd, not clipped") if name in names]
    return list(dict.fromkeys([REFERENCE, *plain, *names]))[:SHOWN]


def _usable(results: Record, name: str) -> list[Record]:
    return [row for row in group_of(results, name) if not row["divergent"]]


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(difference: Record) -> str:
    return f"{difference['value']:.2f} ({difference['low']:.2f} to {difference['high']:.2f})"
