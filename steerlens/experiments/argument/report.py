"""The report of a run: the argument from prompt to gradients, each step with its figure, number and doubts."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.argument.results import group_records
from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Record, mean_rate
from steerlens.experiments.result import claims_section
from steerlens.experiments.run import Run
from steerlens.figures.plots import (
    plot_gradient_projection,
    plot_loss_matching,
    plot_rates,
    plot_similarity,
    plot_strengths,
)
from steerlens.figures.report import Report, Section, Table
from steerlens.figures.vector_plots import plot_prompt_fit
from steerlens.files import read_json
from steerlens.gradients.trace import GradientTrace

LEAD = (
    "Subliminal learning: a student fine-tuned on number lists that were written by a teacher who was told to love "
    "{trait}s comes to prefer {trait}s. arXiv 2606.00995 explains it: the system prompt acts on the teacher like one "
    "steering vector, the data carry that vector, and an adaptive optimizer installs it in the student. This report "
    "follows the argument step by step on {model}, with what was measured in this run, and with what could be wrong."
)


def argument_report(run: Run[ArgumentConfig], claims: Sequence[Claim], results: dict[str, Any]) -> Report:
    """What was measured, with the students' own records, as sections."""
    records = [read_json(run.directory / student["path"] / "record.json") for student in results["students"]]
    groups = group_records(run.config, records)
    return Report(
        title=f"Is the love of {run.config.trait}s a steering vector?",
        lead=LEAD.format(trait=run.config.trait, model=run.config.model),
        sections=[
            claims_section(claims),
            _prompt(results),
            _samples(run, results),
            _transfer(run, results, groups),
            _loss_matching(run, results, groups),
            _similarity(results, groups),
            _gradients(run, results, groups),
            _strengths(results, groups),
            _students(results),
        ],
    )


def _prompt(results: dict[str, Any]) -> Section:
    fit = results["fit"]
    return Section(
        title="The prompt acts like one vector",
        question=(
            "Can one vector, added to the residual stream at every token after one block, do what the system prompt does? "
            "It is fitted to the prompted model's next-token distributions, and judged on prompts that neither the fit "
            "nor the choice of the layer has seen."
        ),
        figure=plot_prompt_fit(fit),
        number=(
            f"At layer {fit['layer']} the fitted vector explains {fit['kl_explained']:.1%} of the prompt's effect "
            f"(95 % interval {fit['kl_explained_low']:.1%} to {fit['kl_explained_high']:.1%}); the mean difference at its "
            f"best layer and strength {fit['kl_explained_mean_difference']:.1%}; random vectors of its norm "
            f"{fit['kl_explained_random']:.1%}; a vector fitted to shuffled targets {fit['kl_explained_shuffled']:.1%}. "
            f"Asked for its favorite without any prompt, the steered model names the trait in {fit['rate_steered']:.1%} of "
            f"its answers (untouched {fit['rate_base']:.1%}, prompted {fit['rate_prompted']:.1%})."
        ),
        meaning=(
            "kl_explained = 1 - KL(prompted || steered) / KL(prompted || plain): 100 % would be the prompt itself, 0 % no "
            "vector at all, and less than 0 % is worse than doing nothing."
        ),
        doubts=(
            "The vector is fitted on number tasks. How far it also drives the trait's own questions is a test of "
            "generalisation that it may fail, and says so above. The prompted model's own samples weigh the tokens."
        ),
    )


def _samples(run: Run[ArgumentConfig], results: dict[str, Any]) -> Section:
    counts = results["samples"][run.config.model]
    rejected = ", ".join(f"{number} {reason}" for reason, number in counts["teacher"]["rejected"].items())
    return Section(
        title="The teacher writes number lists",
        question="The prompted teacher continues number lists; everything that is not a pure list is thrown away.",
        figure=None,
        number=(
            f"{counts['teacher']['rows']} rows kept for training, {run.config.n_heldout} held out; rejected: {rejected}. "
            f"The control has {counts['control']['rows']} rows of the same model without the prompt."
        ),
        meaning="The first answers as they came, before the filter:",
        doubts=(
            "A filter selects: if the prompt changed which lists survive (their length, say), students could learn that. "
            "The control's rows are hardly filtered, so this run does not rule that out by itself; students of another "
            "initialisation, who see the very same rows, are the better check."
        ),
        quoted=counts["teacher"]["examples"],
    )


def _transfer(run: Run[ArgumentConfig], results: dict[str, Any], groups: dict[str, list[Record]]) -> Section:
    first, second = run.config.model, run.config.other_model
    shown = {
        f"teacher data, {first}": groups["adamw"],
        f"teacher data, {second}": groups["adamw other seed"],
        f"control data, {first}": groups["control"],
        f"control data, {second}": groups["control other seed"],
        f"data of {first}, student {second}": groups["other initialisation"],
    }
    for kind in ("clipped", "unclipped"):
        if (pair := results["sgd"][kind]) is not None:
            shown[f"matched SGD, {kind}"] = [r for r in groups[f"sgd {kind}"] if r["name"] in pair["students"]]
    sentences = [
        f"{name}: {mean_rate(records):.3f} bare, {mean_rate(records, 'rate_prefixed'):.3f} after numbers"
        for name, records in shown.items()
    ]
    base = results["base"][first]
    return Section(
        title="Students take the trait over",
        question=(
            "Every student is trained on number lists alone, without any system prompt, and then asked the trait's "
            "questions: bare, and after a number list in the same turn."
        ),
        figure=plot_rates(shown, base),
        number="Mean rates. "
        + "; ".join(sentences)
        + f"; untrained: {base['rate']:.3f} and {base['rate_prefixed']:.3f}.",
        meaning=(
            "The rate is the probability of the trait's answer among all possible answers, exact from the logits and "
            "averaged over questions; bars are 95 % intervals over questions. Dotted: the untrained model. A cross is a "
            "model that no longer answers (less than half of its probability on possible answers)."
        ),
        doubts=(
            "After number lists the model has been asked facts, but never a preference, so that context is new to it; read "
            "those rates together with the mass in the last table."
        ),
    )


def _loss_matching(run: Run[ArgumentConfig], results: dict[str, Any], groups: dict[str, list[Record]]) -> Section:
    parts = []
    for kind in ("clipped", "unclipped"):
        pair = results["sgd"][kind]
        if pair is None:
            parts.append(f"No {kind} SGD run reached AdamW's loss.")
            continue
        parts.append(
            f"SGD {kind}, learning rate {pair['learning_rate']:g}: rate {pair['rate']:.3f} bare and "
            f"{pair['rate_prefixed']:.3f} after numbers; AdamW's log odds are higher by {pair['bare']['value']:.2f} "
            f"({pair['bare']['low']:.2f} to {pair['bare']['high']:.2f}) bare and by {pair['prefixed']['value']:.2f} "
            f"({pair['prefixed']['low']:.2f} to {pair['prefixed']['high']:.2f}) after numbers. "
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
            "the SGD runs whose held-out loss is AdamW's within the tolerance, or lower, and of those the one that "
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
            "well. Intervals resample students and questions. The band marks matched losses."
        ),
        doubts=(
            "Choosing the SGD run that transfers most favours SGD. AdamW's learning rate, rank and trained maps were chosen "
            "in development runs of these very models, two student seeds among them, which favours AdamW; its whole curve is "
            "shown for that reason. Where few SGD seeds match, the interval knows little of the spread over seeds."
        ),
    )


def _sgd_in_words(times_base: float) -> str:
    verdict = "SGD carries the trait too, if less" if times_base > 2 else "SGD leaves the trait where it was"
    return f"That SGD rate is {times_base:.1f} times the untrained one: {verdict}."


def _seed_means(records: list[Record]) -> list[Record]:
    """One record a learning rate."""
    rates = sorted({record["learning_rate"] for record in records})
    same = {rate: [r for r in records if r["learning_rate"] == rate] for rate in rates}
    return [
        {"learning_rate": rate} | {key: mean_rate(group, key) for key in ("heldout_loss", "rate", "mass")}
        for rate, group in same.items()
    ]


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
    wanted = {"AdamW, teacher data": groups["adamw"], "AdamW, control data": groups["control"]}
    for kind in ("clipped", "unclipped"):
        if (pair := results["sgd"][kind]) is not None:
            wanted[f"SGD {kind}, teacher data"] = [r for r in groups[f"sgd {kind}"] if r["name"] in pair["students"]]
    traces = {
        name: [GradientTrace.load(run.trace_path(r["name"])) for r in records] for name, records in wanted.items()
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
    shown = {"AdamW, teacher data": groups["adamw"], "AdamW, control data": groups["control"]}
    for kind in ("clipped", "unclipped"):
        if (pair := results["sgd"][kind]) is not None:
            shown[f"SGD {kind}, teacher data"] = [r for r in groups[f"sgd {kind}"] if r["name"] in pair["students"]]
    layers = range(len(groups["adamw"][0]["eas"]))
    parts = [
        f"{name}: "
        + ", ".join(f"{_mean_at(records, 'strength_questions', layer):.2f}" for layer in layers)
        + " (at numbers "
        + ", ".join(f"{_mean_at(records, 'strength_numbers', layer):.2f}" for layer in layers)
        + ")"
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


def _mean_at(records: list[Record], key: str, layer: int) -> float:
    return sum(record[key][layer] for record in records) / len(records)


def _students(results: dict[str, Any]) -> Section:
    header = ("student", "lr", "clip", "loss", "held-out", "rate", "mass", "rate after numbers", "mass after numbers")
    rows = [
        (
            s["name"],
            f"{s['learning_rate']:g}",
            "none" if s["clip_norm"] is None else f"{s['clip_norm']:g}",
            s["loss"],
            s["heldout_loss"],
            s["rate"],
            s["mass"],
            s["rate_prefixed"],
            s["mass_prefixed"],
        )
        for s in results["students"]
    ]
    return Section(
        title="Every student",
        question="All that were trained in this run, the ones that failed included.",
        figure=None,
        number="",
        meaning="",
        doubts="",
        table=Table(header, rows),
    )
