"""The report of a run: the argument from prompt to gradients, each step with its figure, number and doubts."""

from collections.abc import Sequence
from typing import Any

from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.argument.mechanism import matched_sgd, mechanism_sections
from steerlens.experiments.argument.results import group_records
from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Record, mean_rate
from steerlens.experiments.result import claims_section
from steerlens.experiments.run import Run
from steerlens.figures.plots import plot_rates
from steerlens.figures.report import Report, Section, Table
from steerlens.figures.vector_plots import plot_prompt_fit
from steerlens.files import read_json

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
            *mechanism_sections(run, results, groups),
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
        **{f"matched SGD, {kind}": records for kind, records in matched_sgd(results, groups).items()},
    }
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
