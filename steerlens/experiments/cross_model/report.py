"""The report of the experiment across models: who learns from whom, and whose vector predicts whose data."""

from collections.abc import Sequence
from typing import Any

from steerlens.experiments.claims import Claim
from steerlens.experiments.cross_model.config import CrossModelConfig
from steerlens.experiments.cross_model.results import PAIRS, SAME, SELF
from steerlens.experiments.rates import Record, written
from steerlens.experiments.result import experiment_report
from steerlens.experiments.run import Run
from steerlens.figures.causal_plots import plot_conditions, plot_matrix
from steerlens.figures.palette import COLORS, CONTROL, TEACHER
from steerlens.figures.report import Report, Section, Table

LEAD = (
    "A steering vector is a direction in one model's residual stream. If that is what the lists carry, they should mean nothing "
    "to another initialisation of the same recipe ({other}), and still the same to {model} after it was trained further "
    "(arXiv 2606.00995, section 4 and appendix H)."
)


def cross_model_report(
    run: Run[CrossModelConfig], claims: Sequence[Claim], measures: dict[str, Any], students: Sequence[Record]
) -> Report:
    """What was measured, as sections."""
    return experiment_report(
        title="Is the vector the model's own?",
        lead=LEAD.format(model=run.config.model, other=run.config.other_model),
        claims=claims,
        sections=[
            _students(run, measures, students),
            _matrix(measures),
        ],
        students=students,
    )


def _students(run: Run[CrossModelConfig], measures: dict[str, Any], students: Sequence[Record]) -> Section:
    arms, base = measures["arms"], measures["base"]
    colors = {
        pair.name: CONTROL if not pair.prompted else TEACHER if {pair.source, pair.student} <= SAME else COLORS[1]
        for pair in PAIRS
    } | {pair.name: TEACHER for pair in PAIRS if pair.source == pair.student and pair.prompted}
    rows = [
        (
            name,
            arm["rate"],
            arm["rate_prefixed"],
            arm["mass"],
            arm["over_base"],
            arm["over_base_prefixed"],
            written(arm["minus_base"]),
        )
        for name, arm in arms.items()
    ]
    header = ("students", "rate", "after numbers", "mass", "over base", "after numbers", "log odds minus base's")
    return Section(
        title="Who learns from whom",
        question=(
            "The same rows, the same training: students of the model that wrote the rows, of another initialisation, and of that "
            "model after all its weights were trained on its own unprompted answers."
        ),
        figure=plot_conditions(
            {pair.name: [student for student in students if student["role"] == pair.name] for pair in PAIRS},
            base[SELF],
            colors,
        ),
        number="\n".join(
            f"{name}: rate {arm['rate']:.3f}, {arm['over_base']:.1f} times its base's; "
            f"log odds minus base's {written(arm['minus_base'])}."
            for name, arm in arms.items()
        )
        + "\nUntrained: "
        + "; ".join(f"{name} {record['rate']:.3f}" for name, record in base.items())
        + ".",
        meaning="Each rate is compared to that of the student's own base; dotted is the model that writes most of the rows.",
        doubts=(
            f"Two initialisations are one pair. The further training is short ({run.config.n_further} answers of its own), "
            "and a model that moved further might learn less. What recipe the initialisations share is shared by all of this."
        ),
        table=Table(header, rows),
    )


def _matrix(measures: dict[str, Any]) -> Section:
    matrix = measures["matrix"]
    rows = [
        (
            extractor,
            source,
            f"{entry['value']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})",
            f"{entry['taught']:.4f}",
            f"{entry['control']:.4f}",
            f"{entry['largest_of_random']:.4f}",
            f"{entry['p_value']:.4f}",
        )
        for extractor, row in matrix.items()
        for source, entry in row.items()
    ]
    return Section(
        title="Whose vector predicts whose data",
        question=(
            "Each model is steered by its own vector, without prompt, and reads every model's rows: how much does the vector "
            "take off the loss of prompted rows, more than off the loss of unprompted rows?"
        ),
        figure=plot_matrix(
            {extractor: {source: entry["value"] for source, entry in row.items()} for extractor, row in matrix.items()},
            rows="vector and reader",
            columns="writer of the rows",
            title="nats a token",
        ),
        number="; ".join(
            f"{extractor} on {source}: {entry['value']:.4f}, permutation p {entry['p_value']:.4f}"
            for extractor, row in matrix.items()
            for source, entry in row.items()
        )
        + ".",
        meaning=(
            "NLL(unsteered) - NLL(steered) per completion token, among the tokens that lists are written with, prompted rows "
            "minus control rows: the same vector on rows of the same model, so that what it does to all lists alike cancels. Its "
            "strength is the one that predicts held-out prompted rows of its own model best ("
            + ", ".join(f"{extractor} {row[extractor]['strength']:g}" for extractor, row in matrix.items())
            + "). p permutes which rows were prompted. Random vectors have the vector's norms."
        ),
        doubts=(
            "Where the strength is the smallest that was tried, filtered rows hardly carry the vector as it was fitted, to "
            "answers with words: reductions are small, and only their difference says something. Rows are each row's own mean, "
            "whatever its length. A vector can take something off a stranger's rows by what the filter does to lengths alone."
        ),
        table=Table(
            ("vector and reader", "writer", "difference", "prompted", "control", "largest of random", "permutation p"),
            rows,
        ),
    )
