"""Is the vector the model's own? Students of another initialisation, students of the same one trained further, and losses.

A steering vector is a direction in one model's residual stream. If that is what lists carry, they should mean nothing to another
initialisation of the same recipe, and still the same to the model after it was trained further. Reference: arXiv 2606.00995,
section 4 and appendix H.
"""

from dataclasses import dataclass
from pathlib import Path

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.loss_matrix import Matrix, loss_matrix
from steerlens.replication.lab.run import Experiment

FURTHER = sl.TrainConfig(method="full", learning_rate=1e-3, epochs=2)


@dataclass(frozen=True)
class Reader:
    """A model that writes, learns and reads: `kin` models have one initialisation."""

    name: str
    kin: str


OWN, OTHER, LATER = (
    Reader("model", "first"),
    Reader("other initialisation", "other"),
    Reader("model trained further", "first"),
)
READERS = (OWN, OTHER, LATER)


@dataclass(frozen=True)
class Pair:
    """Whose rows, told or not, which student learns from."""

    writer: Reader
    student: Reader
    told: bool = True

    @property
    def name(self) -> str:
        """In words."""
        return f"{'told' if self.told else 'control'} rows of the {self.writer.name}, student the {self.student.name}"


PAIRS = (
    Pair(OWN, OWN),
    Pair(OTHER, OTHER),
    Pair(OWN, OTHER),
    Pair(OTHER, OWN),
    Pair(OWN, LATER),
    Pair(OWN, OWN, told=False),
    Pair(OWN, LATER, told=False),
)


@dataclass(frozen=True)
class CrossModel:
    """What was measured; rates over base are of each student's own base, bare and after numbers."""

    base: dict[str, sl.Asked]
    students: dict[str, compare.Summary]
    over_base: dict[str, tuple[float, float]]
    matrix: Matrix


def run(lab: Lab) -> Findings:
    """Let every model write, learn from the others, and read all rows with its own vector."""
    weights = {OWN: lab.profile.weights, OTHER: str(lab.profile.other_initialisation), LATER: str(train_further(lab))}
    base = {reader: lab.base(path) for reader, path in weights.items()}
    rows = lab.write(
        {
            (reader.name, told): lab.teacher(f"{'told' if told else 'control'} {reader.name}", weights=path, told=told)
            for reader, path in weights.items()
            for told in (True, False)
        }
    )

    def plan(pair: Pair) -> sl.StudentPlan:
        found, student = rows[pair.writer.name, pair.told].require(), weights[pair.student]
        return lab.plan(pair.name, found, lab.mean_difference(student), base=student)

    students = lab.train({pair: plan(pair) for pair in PAIRS})
    over = {
        pair: (compare.times(group, base[pair.student]), compare.times(group, base[pair.student], "after_numbers"))
        for pair, group in students.items()
    }
    measures = CrossModel(
        base=compare.named(base),
        students=compare.summaries(students),
        over_base=compare.named(over),
        matrix=lab.once("loss-matrix", Matrix, lambda: loss_matrix(lab, compare.named(weights), rows)),
    )
    return _conclude(lab, measures, {pair: bare for pair, (bare, _) in over.items()}, students)


def train_further(lab: Lab) -> Path:
    """Train all weights on the model's own unprompted answers, to tasks, preferences and facts; the checkpoint's directory."""
    path = lab.directory / "further"
    if not path.is_dir():
        model = lab.load()
        wording, n = sl.wording_of(model), lab.sizes.n_rows
        asked = [question for kind in wording.kinds for question in wording.preferences(kind)]
        asked += wording.fact_questions
        tasks = sl.number_prompts(n, model, seed=7)
        prompts = [tasks[row] if row % 2 else asked[row // 2 % len(asked)] for row in range(n)]
        own = sl.sample_teacher(model, prompts, seed=7, path=lab.directory / "samples" / "further.jsonl")
        finished = tuple(sample for sample in own if sample.finished and sample.completion.strip())
        sl.train_student(model, sl.SampleSet(finished, own.source), FURTHER).save(path)
    return path


def make_claims(measures: CrossModel, over: dict[Pair, float]) -> list[Claim]:
    """The claims; reductions are in thousandths of a nat a token."""
    matrix = measures.matrix.by_reader
    kin = [matrix[one.name][other.name] for one in READERS for other in READERS if one.kin == other.kin]
    strangers = [matrix[one.name][other.name] for one in READERS for other in READERS if one.kin != other.kin]
    least = min(one.difference.value for one in kin)
    return [
        above("own rows transfer", over[Pair(OWN, OWN)], 3.0),
        below("other initialisation does not", max(over[Pair(OWN, OTHER)], over[Pair(OTHER, OWN)]), 2.0),
        above("trained further, it still does", over[Pair(OWN, LATER)], 3.0),
        below("and not from control rows", over[Pair(OWN, LATER, told=False)], 2.0),
        above("vectors predict related data", 1000 * min(one.difference.low for one in kin), 0.0),
        above("more than random ones", 1000 * min(one.difference.value - one.largest_of_random for one in kin), 0.0),
        below("vectors do not predict strangers' data", max(one.difference.value for one in strangers) / least, 0.25),
    ]


def _conclude(
    lab: Lab, measures: CrossModel, over: dict[Pair, float], students: dict[Pair, compare.Students]
) -> Findings:
    matrix = measures.matrix.by_reader
    rows = [
        (reader, writer, one.difference.text(4), f"{one.told:.4f}", f"{one.control:.4f}", f"{one.largest_of_random:.4f}",
         f"{one.p_value:.4f}", f"{one.strength:g}")
        for reader, row in matrix.items() for writer, one in row.items()
    ]  # fmt: skip
    header = ("vector and reader", "writer", "difference", "told", "control", "largest of random", "permutation p",
              "strength")  # fmt: skip
    slots = {
        "model": lab.profile.weights, "other": lab.profile.other_initialisation, "n": lab.sizes.n_rows,
        "students": "".join(f"\n{pair.name}: {times:.1f} times its base's rate." for pair, times in over.items()),
        "base": "; ".join(f"{name} {one.bare.rate:.3f}" for name, one in measures.base.items()),
    }  # fmt: skip
    table = [
        (name, str(one.bare), str(one.after_numbers), one.mass, *measures.over_base[name])
        for name, one in measures.students.items()
    ]
    exhibits = {
        "students": Exhibit(sl.plot_rates(compare.named(students), measures.base[OWN.name],
                                              controls=[pair.name for pair in PAIRS if not pair.told]),
                            sl.Table(("students", "rate", "after numbers", "mass", "over base", "after numbers"), table)),
        "matrix": Exhibit(plots.plot_matrix({reader: {writer: one.difference.value for writer, one in row.items()}
                                             for reader, row in matrix.items()}, rows="vector and reader",
                                            columns="writer of the rows", title="nats a token"), sl.Table(header, rows)),
    }  # fmt: skip
    return conclude(
        "cross_model", make_claims(measures, over), measures, slots=slots, exhibits=exhibits, students=students
    )


EXPERIMENT = Experiment(
    "Does a trait pass to another initialisation, and to the same one trained further?",
    run,
    CrossModel,
    {"quick": 5, "full": 15},
    needs=("other_initialisation",),
)
