"""Is any vector distilled? Teachers are steered by vectors with and without a meaning, and write number lists.

If training on lists installs whatever vector steered their author, it should do so for vectors without any meaning too. Only
behaviour should depend on what a vector means. Reference: arXiv 2606.00995, section 5.
"""

from dataclasses import dataclass, replace

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.directions import Arm, Steered, VectorKind, Vectors, make_vectors
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.teachers import silent_in_words

CONTROL = "control"
EPOCHS = 10
"""As the paper's students in this experiment."""


@dataclass(frozen=True)
class Distilled:
    """What the students of an arm took over.

    Args:
        eas: with the vector that steered their teacher, one a student.
        highest_floor: the largest mean EAS of another group's students with the same vector.
        rate_over_control: of the arm's trait, over the control students' rate of it.
        answers_moved: total variation between the students' and the control's mean answers.
    """

    eas: tuple[float, ...]
    highest_floor: float
    rates: tuple[float, ...]
    rate_over_control: float
    mass: float
    answers_moved: float
    strength_numbers: float
    strength_questions: float


@dataclass(frozen=True)
class Distillation:
    """What was measured."""

    vectors: Vectors
    cosines: dict[str, dict[str, float]]
    distilled: dict[str, Distilled]
    silent: tuple[str, ...]
    answers_floor: float
    rise: sl.Interval


def run(lab: Lab) -> Findings:
    """Steer teachers, let them write, train students, and see what these took over."""
    vectors = lab.once("vectors", Vectors, lambda: make_vectors(lab))
    files = {one.arm.name: lab.vector_file(one.arm.name) for one in vectors.steered}
    rows = lab.write(
        {CONTROL: lab.teacher(CONTROL)} | {name: lab.teacher(name, vector=file) for name, file in files.items()}
    )
    for needed in (CONTROL, vectors.steered[0].arm.name):
        rows[needed].require()
    arms = {one.arm.name: one.arm for one in vectors.steered if rows[one.arm.name].n}
    main, train = vectors.steered[0].arm, replace(lab.student, epochs=EPOCHS)
    students = lab.train(
        {
            name: lab.plan(name, rows[name], files[arm.name], trait=arm.trait, train=train)
            for name, arm in (arms | {CONTROL: main}).items()
        }
    )
    full = {name: sl.SteeringVector.load(files[name]) for name, arm in arms.items() if arm.strength == 1}
    cosines = {
        group: {name: float(cosine[0]) for name, cosine in row.items()}
        for group, row in compare.cosines(students, full).items()
    }
    dose = sorted((arm for arm in arms.values() if arm.direction == main.direction), key=lambda arm: arm.strength)
    measures = Distillation(
        vectors=vectors,
        cosines=cosines,
        distilled={name: distilled(arm, arms, students, cosines) for name, arm in arms.items()},
        silent=tuple(name for name, one in rows.items() if not one.n),
        answers_floor=answers_floor(students[CONTROL]),
        rise=compare.minus(students[dose[-1].name], students[dose[0].name]),
    )
    return _conclude(lab, measures, arms, dose, students)


def distilled(
    arm: Arm, arms: dict[str, Arm], students: dict[str, compare.Students], cosines: dict[str, dict[str, float]]
) -> Distilled:
    """An arm's students next to its floors, which are the students who never met its vector, and to the control's."""
    nan, group, control = float("nan"), students[arm.name], students[CONTROL]
    strangers = [CONTROL, *(other.name for other in arms.values() if other.direction != arm.direction)]
    return Distilled(
        eas=tuple(float(one.at_numbers.cosine[0]) for one in group if one.at_numbers is not None),
        highest_floor=max(cosines[name].get(arm.direction, nan) for name in strangers),
        rates=tuple(compare.rates(group)),
        rate_over_control=compare.rate(group) / compare.mean_answers(control)[arm.trait],
        mass=compare.mass(group),
        answers_moved=compare.answers_moved(group, control),
        strength_numbers=float(compare.by_layer(group, "at_numbers", "strength")[0]),
        strength_questions=float(compare.by_layer(group, "at_questions", "strength")[0]),
    )


def answers_floor(control: compare.Students) -> float:
    """How far one control student's answers are from the others', on average; 0 where there is one."""
    pairs = [([one], [other for other in control if other is not one]) for one in control if len(control) > 1]
    return float(np.mean([compare.answers_moved(*pair) for pair in pairs])) if pairs else 0.0


def make_claims(measures: Distillation, arms: dict[str, Arm]) -> list[Claim]:
    """The claims are about vectors of full strength, and one is about strength."""
    nan = float("nan")

    def of(*kinds: VectorKind) -> list[Distilled]:
        return [measures.distilled[name] for name, arm in arms.items() if arm.kind in kinds and arm.strength == 1]

    def lead(*kinds: VectorKind) -> float:
        return min((_eas(one) - one.highest_floor for one in of(*kinds)), default=nan)

    moved = min((one.answers_moved for one in of("semantic")), default=nan)
    return [
        above("semantic vectors are distilled", lead("semantic"), 0.2),
        above("random vectors are distilled", lead("random"), 0.2),
        above("unembedding vectors are distilled", lead("unembedding"), 0.2),
        above("behaviour with meaning", min((one.rate_over_control for one in of("semantic")), default=nan), 3.0),
        below("no behaviour without",
              max((one.answers_moved for one in of("random", "unembedding")), default=nan) / moved, 0.5),
        above("dose and response", measures.rise.low, 0.0),
    ]  # fmt: skip


def _conclude(
    lab: Lab, measures: Distillation, arms: dict[str, Arm], dose: list[Arm], students: dict[str, compare.Students]
) -> Findings:
    steered = {one.arm.name: one for one in measures.vectors.steered}
    full = {name: one for name, one in measures.distilled.items() if arms[name].strength == 1}
    kinds = {
        kind: {name: (_eas(one), one.answers_moved) for name, one in full.items() if arms[name].kind == kind}
        for kind in ("semantic", "random", "unembedding")
    }
    rows = [
        (name, arms[name].kind, f"{steered[name].norm:.1f}", steered[name].own.bare.rate, float(np.mean(one.rates)),
         one.answers_moved, one.mass, _eas(one), one.highest_floor)
        for name, one in measures.distilled.items()
    ]  # fmt: skip
    header = ("vector", "kind", "norm", "steered model", "students' rate", "answers moved", "mass", "EAS",
              "highest floor")  # fmt: skip
    slots = {
        "model": lab.profile.weights, "layer": measures.vectors.layer, "trait": lab.profile.trait, "rise": measures.rise,
        "floor": measures.answers_floor, "silent": silent_in_words(measures.silent),
        "eas": "\n".join(f"{name}: EAS {_eas(one):.2f}, highest floor {one.highest_floor:.2f}; answers moved by "
                         f"{one.answers_moved:.3f}." for name, one in full.items()),
    }  # fmt: skip
    exhibits = {
        "matrix": Exhibit(plots.plot_matrix(measures.cosines, rows="students of the teacher with",
                                            columns="cosine of their shift with", title="cosine")),
        "behaviour": Exhibit(plots.plot_points(kinds, x="EAS: cosine of the students' shift with the vector",
                                               y="distance of answers from the control's", line=measures.answers_floor),
                             sl.Table(header, rows)),
        "dose": Exhibit(_dose(measures, dose, steered)),
    }  # fmt: skip
    return conclude(
        "distillation", make_claims(measures, arms), measures, slots=slots, exhibits=exhibits, students=students
    )


def _eas(one: Distilled) -> float:
    return float(np.mean(one.eas))


def _dose(measures: Distillation, dose: list[Arm], steered: dict[str, Steered]):
    doses = [arm.strength for arm in dose]
    found = [(arm.strength, measures.distilled[arm.name]) for arm in dose]
    panels = {
        "rate of the trait": {
            "students": (doses, [float(np.mean(one.rates)) for _, one in found]),
            "the steered model itself": (doses, [steered[arm.name].own.bare.rate for arm in dose]),
        },
        "share of the vector in students": {
            "at number tasks": (doses, [one.strength_numbers * strength for strength, one in found]),
            "at questions": (doses, [one.strength_questions * strength for strength, one in found]),
        },
    }
    return plots.plot_curves(panels, x="strength of the vector in the teacher")


EXPERIMENT = Experiment(
    "Do students distil any vector that steers their teacher?", run, Distillation, {"quick": 10, "full": 38}
)
