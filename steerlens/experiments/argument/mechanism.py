"""Sections on how training installs the vector: losses, activations, gradients, strengths."""

import itertools
from typing import Any

import numpy as np

from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.argument.results import by_learning_rate
from steerlens.experiments.rates import Record, mean_rate, written
from steerlens.experiments.run import Run
from steerlens.figures.plots import plot_gradient_projection, plot_loss_matching, plot_similarity, plot_strengths
from steerlens.figures.report import Section
from steerlens.gradients.trace import GradientTrace


def mechanism_sections(
    run: Run[ArgumentConfig], results: dict[str, Any], groups: dict[str, list[Record]]
) -> list[Section]:
    """AdamW next to SGD, in everything that was measured of their students."""
    return [
        _loss_matching(run, results, groups),
        _similarity(results, groups),
        _gradients(run, results, groups),
        _strengths(results, groups),
    ]


def matched_sgd(results: dict[str, Any], groups: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """The SGD students that AdamW's are compared with: clipped and unclipped, where any matched."""
    found = {kind: pair for kind, pair in results["sgd"].items() if pair is not None}
    return {kind: [r for r in groups[f"sgd {kind}"] if r["name"] in pair["students"]] for kind, pair in found.items()}


def _loss_matching(run: Run[ArgumentConfig], results: dict[str, Any], groups: dict[str, list[Record]]) -> Section:
    parts = []
    for kind in ("clipped", "unclipped"):
        pair = results["sgd"][kind]
        if pair is None:
            parts.append(f"No {kind} SGD run reached AdamW's loss.")
            continue
        parts.append(
            f"SGD {kind}, learning rate {pair['learning_rate']:g}: rate {pair['rate']:.3f} bare and "
            f"{pair['rate_prefixed']:.3f} after numbers; AdamW's log odds are higher by {written(pair['bare'])} bare and by "
            f"{written(pair['prefixed'])} after numbers. "
            + _sgd_in_words(pair["rate"] / results["base"][run.config.model]["rate"])
        )
    series = {
        "AdamW, clipped at 1": groups["adamw curve"],
        "SGD, clipped at 1": groups["sgd clipped"],
        "SGD, not clipped": groups["sgd unclipped"],
    }
    return Section(
        title="AdamW against SGD at the same loss",
        question=(
            "Is SGD's failure only a failure to train? Every learning rate of each optimizer is shown; the comparison takes "
            "the SGD learning rates whose held-out loss is AdamW's within the tolerance, or lower, and of those the one that "
            "transfers most."
        ),
        figure=plot_loss_matching(
            {name: _seed_means(records) for name, records in series.items() if records},
            mean_rate(groups["adamw"], "heldout_loss"),
            run.config.loss_tolerance,
        ),
        number=" ".join(parts),
        meaning=(
            "A positive difference in log odds means that AdamW installs more of the trait than SGD that predicts the data as "
            "well. Intervals are over students, paired by their seeds, and questions. The band marks matched losses."
        ),
        doubts=(
            "Choosing the SGD run that transfers most favours SGD. AdamW's learning rate, rank and trained maps were chosen "
            "in development runs of these very models, two student seeds among them, which favours AdamW; its whole curve is "
            "shown for that reason."
        ),
    )


def _sgd_in_words(times_base: float) -> str:
    verdict = "SGD carries the trait too, if less" if times_base > 2 else "SGD leaves the trait where it was"
    return f"That SGD rate is {times_base:.1f} times the untrained one: {verdict}."


def _seed_means(records: list[Record]) -> list[Record]:
    """One record a learning rate."""
    return [
        {"learning_rate": rate} | {key: mean_rate(group, key) for key in ("heldout_loss", "rate", "mass")}
        for rate, group in by_learning_rate(records).items()
    ]


def _compared(results: dict[str, Any], groups: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Both optimizers' students of teacher data, and the control's."""
    sgd = {f"SGD {kind}, teacher data": records for kind, records in matched_sgd(results, groups).items()}
    return {"AdamW, teacher data": groups["adamw"], "AdamW, control data": groups["control"], **sgd}


def _similarity(results: dict[str, Any], groups: dict[str, list[Record]]) -> Section:
    layer, floors = results["eas"]["layer"], results["eas"]["floors"]
    curves = {}
    for (name, key), (where, measure) in itertools.product(
        (("teacher data", "adamw"), ("control data", "control")),
        (("number tasks", "eas"), ("the trait's questions", "eas_questions")),
    ):
        points = [record["eas_curve"] for record in groups[key]]
        steps = [point["step"] for point in points[0]]
        curves[f"{name}, {where}"] = steps, np.mean([[p[measure][layer] for p in student] for student in points], 0)
    return Section(
        title="The student's activations move along the teacher's vector",
        question=(
            "Empirical activation similarity: the cosine between what training did to the student's residuals and what the "
            "prompt does to the teacher's on number tasks, at the last prompt token; the student's are taken on number tasks, "
            "and where the trait is asked for."
        ),
        figure=plot_similarity(curves, floors),
        number=(
            f"EAS at layer {layer}: {results['eas']['teacher'][layer]:.2f} on teacher data. Floors: "
            + ", ".join(f"{name} {value:.2f}" for name, value in floors.items())
            + ". With what is particular to each trait, its vector without the mean over all: "
            + ", ".join(f"{name} {value:.2f}" for name, value in results["eas"]["centred"].items())
            + "."
        ),
        meaning="The floors say what a cosine here is worth: other data, other traits' vectors, random directions.",
        doubts=(
            "Vectors of different animals share what all personas share, so the floor of other traits is high where that "
            "share is large; it is the honest comparison for 'which animal'."
        ),
    )


def _gradients(run: Run[ArgumentConfig], results: dict[str, Any], groups: dict[str, list[Record]]) -> Section:
    layer, cosine = results["gradients"]["layer"], results["gradients"]["mean_cosine"]
    traces = {
        name: [GradientTrace.load(run.trace_path(record["name"])) for record in records]
        for name, records in _compared(results, groups).items()
    }
    return Section(
        title="The gradients point back at the vector",
        question=(
            "At every step, each row's gradient at the output of the block is projected onto the vector: does descent push "
            "the residual stream along it?"
        ),
        figure=plot_gradient_projection(traces, layer=layer),
        number=(
            f"Layer {layer}, mean cosine over rows and steps: teacher data {cosine['adamw']['value']:.4f} "
            f"({cosine['adamw']['low']:.4f} to {cosine['adamw']['high']:.4f}), control data "
            f"{cosine['control']['value']:.4f} ({cosine['control']['low']:.4f} to {cosine['control']['high']:.4f})."
        ),
        meaning=(
            "Positive means that descent moves residuals along the vector. A small but consistent cosine is what the paper "
            "reports. The right panel adds up each step's mean pull; as the student takes the vector over, the pull fades."
        ),
        doubts=(
            "Where the gradient points is not yet where the optimizer steps: the update of the weights, mapped back to "
            "activations, is another curve. Gradients are per row, each row's own mean loss."
        ),
    )


def _strengths(results: dict[str, Any], groups: dict[str, list[Record]]) -> Section:
    shown = _compared(results, groups)
    parts = [
        f"{name}: {_by_layer(records, 'strength_questions')} (at numbers {_by_layer(records, 'strength_numbers')})"
        for name, records in shown.items()
    ]
    return Section(
        title="Where the vector was installed",
        question=(
            "If gradients and activations align under either optimizer, what differs? The strength of the vector in the "
            "student, at the number tasks that it was trained on and at the questions that it never saw."
        ),
        figure=plot_strengths(shown),
        number="Strength at bare questions, layer by layer. " + "; ".join(parts) + ".",
        meaning=(
            "At a strength of 1 the student would hold the teacher's vector whole. A student that holds it at number tasks "
            "alone has learned it for numbers; one that holds it at bare questions too can show the trait there. Where "
            "optimizers differ in rate but not in strength, it is not this vector alone that makes the difference."
        ),
        doubts=(
            "A projection says how far the residual moved along the vector, not that the rest of the move is harmless: the "
            "mass in the last table shows whether the model still answers."
        ),
    )


def _by_layer(records: list[Record], key: str) -> str:
    return ", ".join(f"{mean:.2f}" for mean in np.mean([record[key] for record in records], axis=0))
