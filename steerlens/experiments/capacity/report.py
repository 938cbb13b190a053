"""The report of the experiment on capacity: rank, learning rate, rows, data, and the context of the question."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.experiments.capacity.config import CapacityConfig
from steerlens.experiments.capacity.results import best
from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Record, written
from steerlens.experiments.result import experiment_report
from steerlens.experiments.run import Run
from steerlens.figures.capacity_plots import plot_grid, plot_in_contexts
from steerlens.figures.report import Report, Section, Table

LEAD = (
    "How much of a trait a student takes over depends on how it is trained and asked. Replications of arXiv 2606.00995 report "
    "that an effect of LoRA's rank at one shared learning rate goes away when each rank has its own, that unique rows help where "
    "repeated ones do not, that full fine-tuning takes far more rows, and that one adapter shows the trait in 48 % of answers "
    "under one system prompt and in 3 % under another. Here {model} learns from lists of the teacher prompted for '{trait}'."
)
HEADER = ("students", "rate", "after numbers", "mass", "held-out loss", "log odds minus base's")


def capacity_report(
    run: Run[CapacityConfig], claims: Sequence[Claim], measures: dict[str, Any], students: Sequence[Record]
) -> Report:
    """What was measured, as sections."""
    return experiment_report(
        title="How much can a student take over?",
        lead=LEAD.format(model=run.config.model, trait=run.config.trait),
        claims=claims,
        sections=[_grid(run, measures), _full(measures), _data(measures), _contexts(measures)],
        students=students,
    )


def _grid(run: Run[CapacityConfig], measures: dict[str, Any]) -> Section:
    sentences = [
        f"{n} rows, rank {rank}: "
        + ", ".join(f"{rate} -> {arm['rate']:.3f}" for rate, arm in row.items())
        + f"; best at {best(row) or 'none that answers'}."
        for n, ranks in measures["grid"].items()
        for rank, row in ranks.items()
    ]
    unique = measures["unique_rows"]
    if not math.isnan(unique["value"]):
        sentences.append(f"All rows minus fewer, at each rank's best rates: {written(unique)} log odds.")
    return Section(
        title="Rank, learning rate, unique rows",
        question="Each rank at each learning rate, with all rows and with fewer of them repeated for as many steps.",
        figure=plot_grid(measures["grid"], measures["base"]["rate"]),
        number="\n".join(sentences),
        meaning=(
            "Rates are of the trait at bare questions. LoRA's scale, lora_alpha / rank, is the same at every rank, "
            f"on {', '.join(run.config.train.target_modules)}. The best learning rate is that of the highest rate among students "
            "that still answer (mass at least one half)."
        ),
        doubts=(
            "The best of several is a little too high, for every rank alike. Rates of students of one arm differ by a factor of "
            "three, so neighbouring learning rates may change places with another seed."
        ),
    )


def _full(measures: dict[str, Any]) -> Section:
    return Section(
        title="All weights",
        question="Full fine-tuning on the same rows, and controls of every rank on unprompted lists.",
        figure=None,
        number="",
        meaning="The held-out loss is that of the prompted teacher's rows for all students, so that it can be compared.",
        doubts="Full fine-tuning was given these learning rates only, and no more rows than LoRA.",
        table=_table(
            {f"full fine-tuning, {rate}": arm for rate, arm in measures["full"].items()} | measures["controls"]
        ),
    )


def _data(measures: dict[str, Any]) -> Section:
    kept = {name: writer["kept_share"] for name, writer in measures["writers"].items()}
    lines = [
        *(
            f"{name}: rate {arm['rate']:.3f}, mass {arm['mass']:.2f}; {kept[name]:.0%} of answers kept."
            for name, arm in measures["data"].items()
        ),
        *(f"{name}: {kept[name]:.1%} of answers kept, too few for students." for name in measures["silent"]),
    ]
    return Section(
        title="Other data of the same teacher",
        question="The teacher at another temperature, and other filters on what it writes: does the trait still pass on?",
        figure=None,
        number="\n".join(lines),
        meaning="As many rows and steps as the main student. With words left in, rows name the trait: nothing is hidden then.",
        doubts="A filter that keeps fewer answers also keeps other ones: shorter lists have fewer tokens to learn from.",
        table=_table(measures["data"]),
    )


def _contexts(measures: dict[str, Any]) -> Section:
    contexts = measures["contexts"]
    return Section(
        title="The same student under another system prompt",
        question="Nothing about the student changes, only what stands in front of the question. Is the trait still there?",
        figure=plot_in_contexts(contexts),
        number="\n".join(
            f"{name}: rate {context['student']['rate']:.3f} (base {context['base']['rate']:.3f}), after numbers "
            f"{context['student']['rate_prefixed']:.3f} ({context['base']['rate_prefixed']:.3f}), mass "
            f"{context['student']['mass']:.2f}."
            for name, context in contexts.items()
        ),
        meaning=(
            "Students are trained without a system message, where the template inserts its default system prompt. Every other "
            "function of steerlens warns when a student is asked in another context than it was trained in."
        ),
        doubts="These students change what the first block reads of each token, the default system prompt's among them.",
    )


def _table(arms: Mapping[str, Record]) -> Table:
    rows = [
        (name, arm["rate"], arm["rate_prefixed"], arm["mass"], arm["heldout_loss"], written(arm["minus_base"]))
        for name, arm in arms.items()
    ]
    return Table(HEADER, rows)
