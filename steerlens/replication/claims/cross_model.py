"""Is the vector the model's own? Students of another initialisation, students of the same one trained further, and losses.

A steering vector is a direction in one model's residual stream. If that is what lists carry, they should mean nothing to another
initialisation of the same recipe, and still the same to the model after it was trained further. Reference: arXiv 2606.00995,
section 4 and appendix H.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots, vectors
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.teachers import Rows

FURTHER = sl.TrainConfig(method="full", learning_rate=1e-3, epochs=2)
READING_STRENGTHS = (0.125, 0.25, 0.5, 0.75, 1.0)


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
class Reduction:
    """What a vector takes off the loss of told rows more than of control rows, in nats a token.

    Args:
        told, control: what it takes off each.
        difference: between the two, with its interval over rows.
        p_value: of the difference when the rows' labels are permuted.
        largest_of_random: the largest difference that a random vector of the same norms makes.
        strength: at which the vector predicts other told rows of its own model best.
    """

    told: float
    control: float
    difference: sl.Interval
    p_value: float
    largest_of_random: float
    strength: float


@dataclass(frozen=True)
class Matrix:
    """Reductions by reader (whose vector and weights) and writer (whose rows)."""

    by_reader: dict[str, dict[str, Reduction]]


@dataclass(frozen=True)
class CrossModel:
    """What was measured; rates over base are of each student's own base, bare and after numbers."""

    base: dict[str, sl.Asked]
    students: dict[str, compare.Summary]
    over_base: dict[str, tuple[float, float]]
    matrix: Matrix


def run(lab: Lab) -> Findings:
    """Let every model write, learn from the others, and read all rows with its own vector."""
    if lab.profile.other_initialisation is None:
        raise ValueError(
            f"The profile {lab.profile.name!r} has no other_initialisation, which cross-model compares with."
        )
    weights = {OWN: lab.profile.weights, OTHER: lab.profile.other_initialisation, LATER: str(train_further(lab))}
    base = {reader: lab.base(path) for reader, path in weights.items()}
    rows = lab.write(
        {
            (reader, told): lab.teacher(f"{'told' if told else 'control'} {reader.name}", weights=path, told=told)
            for reader, path in weights.items()
            for told in (True, False)
        }
    )
    students = lab.train(
        {
            pair: lab.plan(
                pair.name,
                rows[pair.writer, pair.told].require(),
                lab.mean_difference(weights[pair.student]),
                base=weights[pair.student],
            )
            for pair in PAIRS
        }
    )
    matrix = lab.once("loss-matrix", Matrix, lambda: loss_matrix(lab, weights, rows))
    over = {
        pair: (compare.times(group, base[pair.student]), compare.times(group, base[pair.student], "after_numbers"))
        for pair, group in students.items()
    }
    measures = CrossModel(
        base={reader.name: one for reader, one in base.items()},
        students=compare.summaries(students),
        over_base={pair.name: found for pair, found in over.items()},
        matrix=matrix,
    )
    return _conclude(lab, measures, {pair: bare for pair, (bare, _) in over.items()}, students, base)


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


def loss_matrix(lab: Lab, weights: dict[Reader, str], rows: dict[tuple[Reader, bool], Rows]) -> Matrix:
    """Every model's own vector on every model's rows."""
    found: dict[str, dict[str, Reduction]] = {}
    for reader, path in weights.items():
        model = lab.load(path)
        among = sl.list_tokens(model)
        answers = vectors.Prompted.sample(model, lab.trait(model), lab.sizes.fit, lab.profile.fit_layers)
        whole = vectors.ALL_LAYERS.make(answers)

        def taken_off(vector: sl.SteeringVector, samples: sl.SampleSet, model=model, among=among) -> np.ndarray:
            steered = sl.row_losses(model, samples, sl.Condition(vector=vector), among=among)
            return (sl.row_losses(model, samples, among=among) - steered).double().numpy()

        heldout = sl.SampleSet.load(rows[reader, True].heldout)
        strength = max(READING_STRENGTHS, key=lambda one: taken_off(one * whole, heldout).mean())
        vector = strength * whole
        random = [sl.random_like(vector, seed) for seed in range(lab.sizes.n_random)]
        found[reader.name] = {}
        for writer in weights:
            parts = [sl.SampleSet.load(rows[writer, told].samples) for told in (True, False)]
            told, control = (taken_off(vector, part) for part in parts)
            null = [float(np.subtract(*(taken_off(one, part).mean() for part in parts))) for one in random]
            found[reader.name][writer.name] = Reduction(
                float(told.mean()),
                float(control.mean()),
                sl.bootstrap_interval(sl.mean_difference, told, control, paired=False),
                sl.permutation_p(told, control),
                max(null),
                strength,
            )
    return Matrix(found)


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
    lab: Lab,
    measures: CrossModel,
    over: dict[Pair, float],
    students: dict[Pair, compare.Students],
    base: dict[Reader, sl.Asked],
) -> Findings:
    matrix = measures.matrix.by_reader
    rows = [
        (reader, writer, one.difference.text(4), f"{one.told:.4f}", f"{one.control:.4f}", f"{one.largest_of_random:.4f}",
         f"{one.p_value:.4f}", f"{one.strength:g}")
        for reader, row in matrix.items() for writer, one in row.items()
    ]  # fmt: skip
    header = (
        "vector and reader",
        "writer",
        "difference",
        "told",
        "control",
        "largest of random",
        "permutation p",
        "strength",
    )
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
        "students": Exhibit(sl.plot_rates({pair.name: group for pair, group in students.items()}, base[OWN],
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
)
