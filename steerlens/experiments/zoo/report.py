"""The report of the zoo: what was known of prompts before training, and what their students learned."""

from collections.abc import Sequence
from typing import Any

from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Record, written
from steerlens.experiments.result import experiment_report
from steerlens.experiments.run import Run
from steerlens.experiments.zoo.config import ZooConfig
from steerlens.experiments.zoo.results import PREDICTORS
from steerlens.figures.causal_plots import plot_matrix
from steerlens.figures.report import Report, Section, Table
from steerlens.figures.zoo_plots import plot_calibration, plot_predictors, plot_zoo

LEAD = (
    "Which system prompts pass into a student through number lists, and could it have been told before any student was "
    "trained? The paper finds that traits whose vectors do not steer are not learned, and that prompts which are not well "
    "approximated by a vector are not either (arXiv 2606.00995, section 4). Here every prompt is examined first and taught "
    "afterwards: personas on {model}, prompts of other kinds, and personas on {control}, which never saw one next to numbers."
)


def zoo_report(
    run: Run[ZooConfig], claims: Sequence[Claim], measures: dict[str, Any], students: Sequence[Record]
) -> Report:
    """What was measured, as sections."""
    return experiment_report(
        title="Is what cannot steer not learned?",
        lead=LEAD.format(model=run.config.model, control=run.config.control_model),
        claims=claims,
        sections=[
            _zoo(measures),
            *([_similarities(measures)] if measures["similarities"] else []),
            _predictors(measures),
            _calibration(measures),
        ],
        students=students,
    )


def _zoo(measures: dict[str, Any]) -> Section:
    prompts = measures["prompts"]
    rows = [
        (
            name,
            one["kind"],
            one["prompt"],
            one["steerability"],
            one["steered_log_odds"],
            one["kl_explained"],
            one["rate"],
            one["mass"],
            one["transfer"],
            one["passed_on"],
        )
        for name, one in prompts.items()
    ]
    header = (
        *("name", "kind", "prompt", "steerability", "log odds, steered", "kl_explained"),
        *("students' rate", "mass", "transfer", "passed on"),
    )
    silent = measures["silent"]
    return Section(
        title="Every prompt",
        question="What was known of each prompt, and how far its trait went up in the students of its lists?",
        figure=plot_zoo(prompts, PREDICTORS, ("steerability", "kl_explained")),
        number=f"{sum(one['passed_on'] for one in prompts.values())} of {len(prompts)} prompts passed their trait on: their "
        f"students' log odds rose by more than {measures['bar']:.2f}."
        + (f" Too few lists were written under: {', '.join(silent)}." if silent else ""),
        meaning=(
            "Transfer is the mean log odds of the trait in students minus that in students of unprompted lists, at bare "
            "questions. A trait has passed on where that is more than 95 % of students of other personas reach for it (a "
            "cross: it has not). Steerability is the rate at the clean peak: the highest under the prompt's vectors (fitted, or "
            "mean difference at any layer) while negated and off-topic questions stay below 0.10 and answers make sense; where "
            "no setting is clean, the plain rate."
        ),
        doubts=(
            "Every prompt has one data set. The model's own preferences are in the steerability: what it likes anyway starts "
            "higher, and what it likes least is already named at negated questions without any vector, so no setting is clean."
        ),
        table=Table(header, rows),
    )


def _similarities(measures: dict[str, Any]) -> Section:
    found = measures["similarities"]
    return Section(
        title="Every persona's students move along its own vector",
        question=(
            "EAS: the cosine of what training added to the residual stream, at number tasks, with the prompt's mean difference "
            f"(after block {found['layer']}, means over students). Rows: what the teacher was told; columns: whose vector."
        ),
        figure=plot_matrix(found["eas"], rows="students of", columns="vector of", title="EAS"),
        number=(
            f"With the own vector {found['median']:.2f} in the median and {found['lowest']:.2f} at least; with another "
            f"persona's {found['highest_other']:.2f} at most; of the control's students {found['highest_control']:.2f} at most. "
            f"The own vector is the nearest for {found['is_highest']} of {len(found['eas']) - 1} personas."
        ),
        meaning=(
            "Personas have much of their vectors in common, such as that words slip in between numbers, so that the floor is "
            "another persona's vector and not 0."
        ),
        doubts="The layer is the one at which the own cosines are highest, which favours them a little.",
    )


def _predictors(measures: dict[str, Any]) -> Section:
    everyone, personas = measures["all"], measures["personas"]

    def line(key: str) -> str:
        one, own = everyone[key], personas[key]
        return (
            f"{PREDICTORS[key]}: AUC {written(one['auc'])} over all prompts, {written(own['auc_majority'])} for the personas "
            f"that take over; with the transfer of personas r {written(own['pearson'])}, rank correlation "
            f"{written(own['spearman'])}."
        )

    return Section(
        title="What tells beforehand?",
        question="Given two prompts of which one passed on, how often had that one the higher value?",
        figure=plot_predictors(
            {
                "passed on, all prompts": {key: one["auc"] for key, one in everyone.items()},
                "half of all answers, personas": {key: one["auc_majority"] for key, one in personas.items()},
            },
            PREDICTORS,
        ),
        number="\n".join(map(line, PREDICTORS)),
        meaning="Intervals are 95 % bootstraps over prompts. 0.5 is chance; a verdict counts 0, a half or 1.",
        doubts=(
            "Prompts of other kinds and the deaf teachers' differ from personas in much else, so an area over all prompts is "
            "easier to reach than one among personas. Students of one data set differ among themselves as well, which no "
            "predictor can know."
        ),
    )


def _calibration(measures: dict[str, Any]) -> Section:
    found, prompts = measures["calibration"], measures["prompts"]
    verdicts = ", ".join(f"{verdict!r} {passed} of {n}" for verdict, (passed, n) in found["verdicts"].items())
    return Section(
        title="A probability instead of a verdict",
        question="How often did prompts of other traits with the same verdict of analyze_prompt pass on, and did this one?",
        figure=plot_calibration(
            found["probabilities"], {name: bool(one["passed_on"]) for name, one in prompts.items()}
        ),
        number=(
            f"Brier score {found['brier']:.3f}, that of the share of other prompts that pass on {found['brier_of_share']:.3f}; "
            f"AUC {written(found['auc'])}.\nVerdicts of analyze_prompt, and how many of each passed on: {verdicts}."
        ),
        meaning="A Brier score is the mean squared distance of the probability from what happened; less is better.",
        doubts="One model, one kind of student, and prompts that were chosen to be of several kinds: others need their own.",
    )
