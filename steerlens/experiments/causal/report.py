"""The report of the experiment on cause: the vector added and taken out, in the teacher and in the student."""

from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.experiments.causal.config import CausalConfig
from steerlens.experiments.causal.results import ADDED, CONTROL, PROMPTED, TAKEN_OUT
from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Record, written
from steerlens.experiments.result import experiment_report
from steerlens.experiments.run import Run
from steerlens.experiments.teacher_vectors import RANDOM
from steerlens.figures.causal_plots import plot_conditions, plot_teachers_and_students
from steerlens.figures.palette import COLORS, TEACHER
from steerlens.figures.palette import CONTROL as GREY
from steerlens.figures.report import Report, Section, Table

LEAD = (
    "A correlation is not a cause: that students move along the teacher's vector does not say that the vector made the data, or "
    "that it makes the student's answers. So here the vector is used without the prompt, and the prompt without the "
    "vector, on {model} and the trait '{trait}'; and the same is done to what training has put into the student "
    "(arXiv 2606.00995, sections 3.2 and 3.3)."
)


def causal_report(
    run: Run[CausalConfig],
    claims: Sequence[Claim],
    measures: dict[str, Any],
    students: Sequence[Record],
    dissections: Sequence[Record],
) -> Report:
    """What was measured, as sections."""
    groups = {name: [record for record in students if record["role"] == name] for name in measures["arms"]}
    return experiment_report(
        title="Is the vector the cause?",
        lead=LEAD.format(model=run.config.model, trait=run.config.trait),
        claims=claims,
        sections=[
            _vectors(measures),
            _teacher(measures, groups, ADDED),
            _teacher(measures, groups, TAKEN_OUT),
            _effect(measures),
            _student(measures, dissections),
        ],
        students=students,
    )


def _vectors(measures: dict[str, Any]) -> Section:
    rows = [
        (
            name,
            ", ".join(map(str, vector["layers"])),
            ", ".join(f"{norm:.1f}" for norm in vector["norms"]),
            vector["validation"],
            *(
                f"{vector[key]:.3f} ({vector[key + '_low']:.3f} to {vector[key + '_high']:.3f})"
                for key in ("kl_explained", "kl_explained_questions")
            ),
            vector["rate"],
            vector["rate_prefixed"],
        )
        for name, vector in measures["vectors"].items()
    ]
    return Section(
        title="Which vector is v_teacher?",
        question=(
            "The paper takes a difference of means; a vector can also be fitted to what the prompt does to predictions. Layers "
            "and strengths are chosen on validation rows, before any student is trained."
        ),
        figure=None,
        number=(
            "The claims are made on the one that has most of the prompt's effect on pure lists, which is what students see: "
            f"{measures['best_vector']}."
        ),
        meaning=(
            "kl_explained is 1 - KL(prompted || steered) / KL(prompted || plain) over answers of the prompted model to "
            "number tasks and to the trait's questions, words included. The random vector is Gaussian with the last one's norms."
        ),
        doubts=(
            "A mean difference at all layers counts what it adds at one layer again at the next ones. The steered rate is "
            "the model's own with the vector, not a student's: a vector made on number tasks need not act at bare questions."
        ),
        table=Table(
            (
                "vector",
                "layers",
                "norms",
                "kl_explained, validation",
                "held out, tasks",
                "held out, questions",
                "steered rate",
                "after numbers",
            ),
            rows,
        ),
    )


def _teacher(measures: dict[str, Any], groups: Mapping[str, list[Record]], kind: str) -> Section:
    arms, best = measures["arms"], kind + measures["best_vector"]
    shown = [PROMPTED, CONTROL, *(name for name in arms if name.startswith(kind))]
    sentences = [f"{name}: {_in_words(arms[name], name)}" for name in shown]
    added = kind == ADDED
    return Section(
        title="Is v_teacher sufficient?" if added else "Is v_teacher necessary?",
        question=(
            "A teacher without any prompt, with the vector added at every token, writes number lists. Do its students take "
            "the trait over, as those of the prompted teacher do?"
            if added
            else "A prompted teacher, with its component along the vector taken out at every token and layer, writes number "
            "lists. Do its students still take the trait over?"
        ),
        figure=plot_conditions(
            {name: groups[name] for name in shown if groups[name]},
            measures["base"],
            {PROMPTED: TEACHER, best: COLORS[1]} | {kind + RANDOM: GREY},
        ),
        number="\n".join([_verdict(arms, kind, measures["best_vector"]), *sentences]),
        meaning=(
            "The share of the transfer is (rate - untrained rate) / (prompted teacher's students' rate - untrained rate), with "
            "its 95 % interval over students and questions; log odds are paired by seed. All teachers answer the same tasks with "
            "the same random numbers, and all students learn from equally many lists."
        ),
        doubts=(
            "Every teacher has one data set, so that intervals know the spread of students, not of data, which can be as large. "
            + (
                "A vector that writes other words than the prompt may pass the filter more often."
                if added
                else "Projecting out sets the component to zero, not to what it would be without the prompt, so it can remove "
                "what the model needs for other things; the random directions say how much of that there is. What the prompt "
                "does outside one direction a layer stays."
            )
        ),
        table=_teachers_table({name: arms[name] for name in shown}),
    )


def _verdict(arms: Mapping[str, Record], kind: str, best: str) -> str:
    """How much of the transfer is there in either context, for the vector that the claim is about and the other ones."""
    shares = {
        name.removeprefix(kind): (arm["share"]["value"], arm["share_prefixed"]["value"])
        for name, arm in arms.items()
        if name.startswith(kind) and not name.endswith(RANDOM) and arm["share"] is not None
    }
    if best not in shares:
        return f"The vector that the claim is about ({best}) leaves no students to ask."
    bare, prefixed = zip(*shares.values(), strict=True)
    did, does = ("Added", "brings") if kind == ADDED else ("Taken out", "leaves")
    return (
        f"{did}, the vector that the claim is about ({best}) {does} {shares[best][0]:.0%} of the transfer on bare questions and "
        f"{shares[best][1]:.0%} after numbers. Over all vectors it is {min(bare):.0%} to {max(bare):.0%}, and "
        f"{min(prefixed):.0%} to {max(prefixed):.0%}."
    )


def _in_words(arm: Record, name: str) -> str:
    if arm["share"] is None:
        return f"no students, for it wrote only {arm['kept']} lists in {arm['asked']} answers."
    if name == PROMPTED:
        return f"rate {arm['rate']:.3f} ({arm['rate_prefixed']:.3f} after numbers): the transfer."
    share, odds = arm["share"], arm["minus_prompted"]
    return (
        f"rate {arm['rate']:.3f} ({arm['rate_prefixed']:.3f} after numbers), share of the transfer {written(share)}, log odds "
        f"minus the prompted teacher's {written(odds)}."
    )


def _teachers_table(arms: Mapping[str, Record]) -> Table:
    rows = [
        (name, f"{arm['kept_share']:.2f}", arm["rows"], arm["effect_on_lists"], *_measured(arm))
        for name, arm in arms.items()
    ]
    header = ("teacher", "lists kept", "rows", "effect on lists", "rate", "mass", "log odds minus control's")
    return Table(header, rows)


def _measured(arm: Record) -> tuple[str | float, ...]:
    if arm["share"] is None:
        return ("", "", "")
    return arm["rate"], arm["mass"], written(arm["minus_control"])


def _effect(measures: dict[str, Any]) -> Section:
    arms = {name: arm for name, arm in measures["arms"].items() if arm["share"] is not None}
    kinds = {
        name: "vector added"
        if name.startswith(ADDED)
        else "vector taken out"
        if name.startswith(TAKEN_OUT)
        else "no vector"
        for name in arms
    }

    def passed_on(arm: Record) -> str:
        own = arm["own_minus_base"]
        return (
            f"{arm['minus_base']['value'] / own:.2f}" if own > 1 else "not asked, for it does not show the trait itself"
        )

    return Section(
        title="What teachers are like, and what students learn",
        question=(
            "How much of the prompt's effect on what students see does each teacher have, how does it answer the trait's "
            "questions itself, and how do its students answer them?"
        ),
        figure=plot_teachers_and_students(arms, kinds),
        number="\n".join(
            f"{name}: effect on lists {arm['effect_on_lists']:.2f}, own rate {arm['own_rate']:.3f}, students' rate "
            f"{arm['rate']:.3f}; share of the teacher's own log odds that passed on: {passed_on(arm)}."
            for name, arm in arms.items()
        ),
        meaning=(
            "The effect is 1 - KL(prompted || teacher) / KL(prompted || plain) on held-out lists of the prompted teacher, among "
            "the tokens that lists are written with, since no student sees others: 1 is the prompt's, 0 the plain model's, and "
            "below 0 a teacher is further from the prompted one than the plain model. Log odds are over the untrained model's; "
            "bars are 95 % intervals over students and questions."
        ),
        doubts="A teacher can also teach the trait by another effect on lists than the prompt's.",
    )


def _student(measures: dict[str, Any], dissections: Sequence[Record]) -> Section:
    student = measures["student"]
    colors = {"student": TEACHER, "added: questions": COLORS[1], "replaced: questions": COLORS[2]}
    sentences = [
        f"{name}: rate {arm['rate']:.3f} (mass {arm['mass']:.2f}), share of the transfer {written(arm['share'])}"
        + (f", the vector explains {arm['explained']:.2f} of the student's next tokens" if "explained" in arm else "")
        + "."
        for name, arm in student.items()
    ]
    return Section(
        title="Is v_student sufficient, and is it necessary?",
        question=(
            "v_student is the mean shift of the student's residuals against its base's, at bare questions or at number tasks. "
            "Added to the base, does it show the trait? Where the student's component along it is replaced by its base's at "
            "every layer and token, is the trait gone?"
        ),
        figure=plot_conditions(
            {name: [record[name] for record in dissections] for name in student}, student["base"], colors
        ),
        number="\n".join(sentences),
        meaning=(
            "Half of the questions are for measuring the shift and for choosing layer and strength (by next-token predictions, "
            "not by the rate); rates are of the other half. Random directions have the norms of the shift that is named."
        ),
        doubts=(
            "One direction a layer is an average over questions; what the student does apart from it, question by question, is "
            "not in it. The shift is measured at the last token of the prompt, and used at every token."
        ),
    )
