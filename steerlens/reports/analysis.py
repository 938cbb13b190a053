"""The report of `analyze_prompt`: is this prompt a vector, what does that vector do, and will it transfer?"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.figures.vector_plots import plot_cosines
from steerlens.reports.fit import readout_section, vector_sections
from steerlens.vectors.analysis import ACTS, IN_NUMBERS, IS_VECTOR, VERDICTS, PromptAnalysis
from steerlens.vectors.probe import Behaviour

MEASURES = ("rate", "mass", "negated", "off_topic", "damage", "coherence")


def write_analysis_report(path: str | Path, analysis: PromptAnalysis) -> None:
    """Write what `analyze_prompt` found as one HTML file."""
    sections = [
        _answer(analysis),
        *vector_sections(analysis.vector),
        readout_section(analysis.promoted, analysis.suppressed),
        _resemblance(analysis),
        _numbers(analysis),
        _behaviour(analysis),
        _transfer(analysis),
    ]
    write_report(
        path,
        Report("What does this prompt do, and is it a vector?", f"Prompt: {analysis.vector.source.prompt}", sections),
    )


def analysis_results(analysis: PromptAnalysis) -> dict[str, Any]:
    """Every number of an analysis, for a JSON file; the directions stay in the vector's own file."""
    vector = analysis.vector
    return {
        "layer": vector.layers[0],
        "source": asdict(vector.source),
        "metrics": vector.metrics.to_json(),
        "promoted": [asdict(token) for token in analysis.promoted],
        "suppressed": [asdict(token) for token in analysis.suppressed],
        "cosines": {name: {"raw": raw, "centred": own} for name, (raw, own) in analysis.cosines.items()},
        "numbers": None if analysis.numbers is None else asdict(analysis.numbers),
        "plain": asdict(analysis.plain),
        "prompted": asdict(analysis.prompted),
        "steered": asdict(analysis.steered),
        "transfer": asdict(analysis.transfer),
    }


def measured(plain: Behaviour) -> list[str]:
    """The measures that the plain model has; without a trait, or without negated questions, some are not asked."""
    return [measure for measure in MEASURES if not math.isnan(getattr(plain, measure))]


def _answer(analysis: PromptAnalysis) -> Section:
    metrics, layer = analysis.vector.metrics, analysis.vector.layers[0]
    return Section(
        title="The answer in one line",
        question="Is this prompt a vector, and is it expected to pass into a student through number lists?",
        figure=None,
        number=(
            f"One vector after block {layer} does {metrics.kl_explained:.0%} of what the prompt does "
            f"({metrics.kl_explained_low:.0%} to {metrics.kl_explained_high:.0%}). Transfer through number lists: "
            f"{analysis.transfer.verdict}."
        ),
        meaning="The sections below show where each part of it comes from, and what speaks against it.",
        doubts="",
    )


def _resemblance(analysis: PromptAnalysis) -> Section:
    title, question = "What it resembles", "Which known prompts push the model the same way?"
    if not analysis.cosines:
        return Section(
            title=title,
            question=question,
            figure=None,
            number="Not measured: there were no known vectors to compare with.",
            meaning="Name a trait, or give known vectors, and the prompt is compared with them.",
            doubts="",
        )
    nearest = sorted(analysis.cosines.items(), key=lambda item: -item[1][1])[:3]
    return Section(
        title=title,
        question=question,
        figure=plot_cosines(analysis.cosines),
        number="Nearest: "
        + "; ".join(f"{name} {own:.2f} (raw {raw:.2f})" for name, (raw, own) in nearest)
        + ". Cosines of mean differences after mean-centring.",
        meaning=(
            "Raw cosines can all be high where prompts are worded alike, since the vectors share what every such prompt does. "
            "Mean-centring takes the mean over the known vectors off and leaves what is particular to each."
        ),
        doubts=(
            "A cosine of 1 with the prompt's own trait is no finding: both vectors come from the same words. Mean differences "
            "are compared, not the fitted vector, and at the fitted vector's layer alone."
        ),
    )


def _numbers(analysis: PromptAnalysis) -> Section:
    title, question = "What it does to numbers", "How does the first number of a list change, among numbers alone?"
    shift = analysis.numbers
    if shift is None:
        return Section(
            title=title,
            question=question,
            figure=None,
            number="Not measured: the tokenizer has hardly any tokens that are numbers.",
            meaning="",
            doubts="",
        )
    return Section(
        title=title,
        question=question,
        figure=None,
        number=(
            f"The prompt changes the distribution over numbers by {shift.prompt:.3f} nats, the vector by {shift.vector:.3f}; "
            f"the two changes correlate by {shift.correlation:.2f}."
        ),
        meaning=(
            "This is all that a pure number list can carry: words are filtered out before a student sees the data. The table "
            "has the numbers that the vector raises most, by mean change of log-probability."
        ),
        doubts=(
            "Only the first number after a task is read; later ones may change more or less. Which numbers rise is a "
            "property of this model and says nothing about what they mean."
        ),
        table=Table(("number", "change of log-probability"), [(token.text, token.change) for token in shift.raised]),
    )


def _behaviour(analysis: PromptAnalysis) -> Section:
    three = {"plain": analysis.plain, "prompted": analysis.prompted, "steered": analysis.steered}
    shown = measured(analysis.plain)
    rows = [(name, *(getattr(one, measure) for measure in shown)) for name, one in three.items()]
    steered, prompted = analysis.steered, analysis.prompted
    rates = (
        f"Rate of the trait: {analysis.plain.rate:.2f} plain, {prompted.rate:.2f} prompted, {steered.rate:.2f} steered. "
        if "rate" in shown
        else "No trait was named, so only unrelated questions were asked. "
    )
    return Section(
        title="What the model does",
        question="How do the plain, the prompted and the steered model behave, where the prompt matters and where it should not?",
        figure=None,
        number=(
            f"{rates}On unrelated questions the vector changes predictions by {steered.damage:.2f} nats a token, the prompt by "
            f"{prompted.damage:.2f}."
        ),
        meaning=(
            "The rate is the share of the trait's answer among all possible answers, and the mass says whether the model "
            "still answers; negated questions ask for what is liked least, off-topic ones for facts. Damage (nats a token) and "
            "coherence are measured on unrelated questions: 0 and 1 are the plain model's."
        ),
        doubts=(
            "Unless other questions were given, the vector was fitted on number tasks: a low steered rate next to a high "
            "kl_explained means that it does not carry over to the trait's questions, not that the fit failed. There are few "
            "negated and off-topic questions."
        ),
        table=Table(("", *shown), rows),
    )


def _transfer(analysis: PromptAnalysis) -> Section:
    words = analysis.transfer.words
    return Section(
        title="Predicted transfer through number lists",
        question="Would a student that is trained on this prompt's number lists, and on nothing else, take the behaviour over?",
        figure=None,
        number=f"{words[:1].upper()}{words[1:]}. {analysis.transfer.reason}",
        meaning=(
            "A transfer takes four things: the prompt changes the numbers, that change is a vector's, the vector acts at the "
            "trait's questions, and it breaks little. It is in doubt where numbers change by less than "
            f"{IN_NUMBERS} nats, the vector explains less than {IS_VECTOR[0]:.0%}, the trait's log odds rise by less than "
            f"{ACTS[0]}, or unrelated predictions change more than those that the prompt is about; otherwise likely where it "
            f"explains at least {IS_VECTOR[1]:.0%} and the log odds rise by at least {ACTS[1]}."
        ),
        doubts=f"These thresholds are set by judgement. {_calibration(analysis)} Only training a student tells.",
    )


def _calibration(analysis: PromptAnalysis) -> str:
    if analysis.transfer.verdict == "not calibrated":
        return "Nobody has counted on this model how often such prompts pass their trait on."
    counted = ", ".join(f"{passed} of {n} prompts called {verdict}" for verdict, (passed, n) in VERDICTS.items() if n)
    return f"Counted afterwards on two embedded models, {counted} passed their trait on."
