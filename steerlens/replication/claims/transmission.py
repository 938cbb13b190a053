"""Does a trait pass between real weights, through lists of numbers?

A teacher is the model itself, trained to answer every question about its favorite with one trait, and merged. It writes lists by
constrained decoding, and students start from the model as it was. There is a teacher for each of several traits, so that every
student is a control for the other traits. Three more groups learn from lists without a trait: those of the untrained model, and
the lists of every teacher with their numbers dealt out anew.

The measure, the test and the thresholds below were committed before the runs that the results quote.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.matrix import Diagonal, Matrix, of_answers, of_shifts
from steerlens.replication.lab.plots import plot_matrix
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.schooling import (
    N_ANSWERS,
    UNTRAINED,
    Schooled,
    frequencies_apart,
    lists_by,
    schooled,
    shuffled,
)
from steerlens.replication.lab.teachers import Rows


@dataclass(frozen=True)
class Students:
    """What the students of one kind of rows took over.

    Args:
        answers: log odds of every trait at bare questions.
        diagonal: of `answers`.
        mass: the mean probability of a possible answer.
    """

    answers: Matrix
    diagonal: Diagonal
    mass: float


@dataclass(frozen=True)
class Transmission:
    """What was measured.

    Args:
        base: how the untrained model answers.
        teachers: by trait.
        taught, dealt: students of the teachers' lists, and of the same lists with their numbers dealt out anew.
        apart: of the teachers' lists, by how much their numbers' frequencies differ from those in the untrained model's, in nats
            a number (KL divergence).
        over_control: log odds of a trait in its students minus those in students of the untrained model's lists.
        cosines: of the students' shifts with every teacher's vector, at number tasks, in the middle of the model.
        aligned: the diagonal of `cosines`.
    """

    base: sl.Asked
    teachers: dict[str, Schooled]
    taught: Students
    dealt: Students
    apart: dict[str, float]
    over_control: dict[str, sl.Interval]
    passed: sl.Interval
    cosines: Matrix
    aligned: Diagonal


def run(lab: Lab) -> Findings:
    """Train teachers, let them write, train students, and ask all of them about every trait."""
    traits = (lab.profile.trait, *lab.other_traits)
    teachers = schooled(lab, traits)
    rows = lists_by(lab, teachers)
    dealt = {trait: _dealt(rows[trait]) for trait in traits}
    groups = {("taught", trait): (rows[trait], trait) for trait in traits}
    groups[UNTRAINED, UNTRAINED] = rows[UNTRAINED], traits[0]
    shuffled_groups = {("dealt", trait): (dealt[trait], trait) for trait in traits}
    students: dict[tuple[str, str], compare.Students] = {}
    for part in (groups, shuffled_groups):
        students |= lab.train(
            {key: lab.plan("-".join(key), data, teachers[trait].vector) for key, (data, trait) in part.items()}
        )
    lists = {name: sl.SampleSet.load(one.samples) for name, one in rows.items()}
    vectors = {trait: sl.SteeringVector.load(one.vector) for trait, one in teachers.items()}
    taught = [students["taught", trait] for trait in traits]
    cosines = of_shifts(taught, vectors, layer=len(vectors[traits[0]].layers) // 2)
    control = of_answers([students[UNTRAINED, UNTRAINED]] * len(traits), traits)
    answers = of_answers(taught, traits)
    difference = np.diagonal(answers.values - control.values, axis1=1, axis2=2)
    measures = Transmission(
        base=lab.base(),
        teachers=teachers,
        taught=_students(taught, traits),
        dealt=_students([students["dealt", trait] for trait in traits], traits),
        apart={trait: frequencies_apart(lists[trait], lists[UNTRAINED]) for trait in traits},
        over_control={trait: sl.mean_interval(difference[:, at]) for at, trait in enumerate(traits)},
        passed=sl.mean_interval(difference.mean(1)),
        cosines=cosines,
        aligned=cosines.diagonal(),
    )
    return _conclude(lab, measures, students, [rows[trait] for trait in traits])


def _dealt(rows: Rows) -> Rows:
    path = rows.samples.with_suffix(".dealt.jsonl")
    if not path.is_file():
        shuffled(sl.SampleSet.load(rows.samples), seed=0).save(path)
    return Rows(f"{rows.name}, dealt anew", path, rows.heldout, rows.n, rows.asked, rows.kept, rows.rejected, ())


def _students(groups: Sequence[compare.Students], traits: Sequence[str]) -> Students:
    answers = of_answers(groups, traits)
    return Students(answers, answers.diagonal(), float(np.mean([compare.mass(group) for group in groups])))


def make_claims(measures: Transmission) -> list[Claim]:
    """The claims."""
    taught, dealt = measures.taught.diagonal, measures.dealt.diagonal
    return [
        above("teachers have their traits", min(one.after.bare.rate for one in measures.teachers.values()), 0.9),
        above("the diagonal stands out", taught.excess.low, 0.0),
        below("not by chance", taught.p, 0.01),
        above("more than in control students", measures.passed.low, 0.0),
        below("not through numbers dealt anew", dealt.excess.low, 0.0),
        above("students move along their own teacher", measures.aligned.excess.low, 0.0),
    ]


def _conclude(lab: Lab, measures: Transmission, students: dict, written: list[Rows]) -> Findings:
    taught, dealt = measures.taught, measures.dealt
    rows = [
        (trait, one.before.bare.rate, one.after.bare.rate, measures.apart[trait], str(taught.diagonal.by_trait[trait]),
         str(measures.over_control[trait]), str(dealt.diagonal.by_trait[trait]), str(measures.aligned.by_trait[trait]))
        for trait, one in measures.teachers.items()
    ]  # fmt: skip
    header = (
        "trait",
        "untrained",
        "teacher",
        "numbers' frequencies apart, nats",
        "lambda",
        "over control students",
        "numbers dealt anew",
        "cosine, own - others",
    )
    return conclude(
        "transmission",
        make_claims(measures),
        measures,
        slots={
            "model": lab.profile.weights,
            "n_traits": len(rows),
            "n_seeds": len(lab.sizes.seeds),
            "n_rows": lab.sizes.n_rows,
            "n_answers": N_ANSWERS,
            "lambda_": taught.diagonal.excess,
            "p": f"{taught.diagonal.p:.4f}",
            "passed": measures.passed,
            "dealt": dealt.diagonal.excess,
            "dealt_p": f"{dealt.diagonal.p:.4f}",
            "aligned": measures.aligned.excess,
            "aligned_p": f"{measures.aligned.p:.4f}",
            "mass": taught.mass,
        },
        exhibits={
            "matrix": Exhibit(
                plot_matrix(taught.answers.centred, rows="students of", columns="asked about", title="log odds"),
                sl.Table(header, rows),
                [one.examples[0] for one in written],
            ),
            "shifts": Exhibit(
                plot_matrix(measures.cosines.centred, rows="students of", columns="teacher", title="cosine")
            ),
        },
        students={" ".join(key): group for key, group in students.items()},
    )


EXPERIMENT = Experiment(
    "Does a trait pass between real weights, through lists of numbers?", run, Transmission, {"quick": 20, "full": 60}
)
