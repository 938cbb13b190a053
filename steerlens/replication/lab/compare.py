"""Groups of models next to each other: rates, differences and shares with intervals over students and questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

import steerlens as sl

Context = Literal["bare", "after_numbers"]
BOTH: tuple[Context, ...] = ("bare", "after_numbers")
K = TypeVar("K")
G = TypeVar("G", bound=Sequence[sl.StudentRecord])
T = TypeVar("T")


@runtime_checkable
class Answering(Protocol):
    """Anything that was asked in both contexts: a student's record, a model that was asked."""

    @property
    def bare(self) -> Any:
        """Its `Answers` to bare questions; None where it diverged."""
        ...

    @property
    def after_numbers(self) -> Any:
        """Its `Answers` behind number lists."""
        ...


Group = Sequence[Answering]
Students = tuple[sl.StudentRecord, ...]
"""One student a seed."""


def named(found: Mapping[Any, T]) -> dict[str, T]:
    """The same by the names of the keys; a key may be a name."""
    return {key if isinstance(key, str) else key.name: one for key, one in found.items()}


def ended(groups: Mapping[K, G]) -> dict[K, G]:
    """The groups of which no student diverged."""
    return {key: group for key, group in groups.items() if not any(one.diverged for one in group)}


def shares(group: Group, context: Context = "bare") -> Float[np.ndarray, "student question"]:
    """The trait's share, for every student and question."""
    return np.array([getattr(one, context).shares for one in group])


def rates(group: Group, context: Context = "bare") -> list[float]:
    """The trait's rate in each student."""
    return [getattr(one, context).rate for one in group]


def rate(group: Group, context: Context = "bare") -> float:
    """The trait's mean rate."""
    return float(np.mean(rates(group, context)))


def mass(group: Group, context: Context = "bare") -> float:
    """The mean probability that an answer is a possible one."""
    return float(np.mean([getattr(one, context).mass for one in group]))


def least_mass(group: Group) -> float:
    """The lowest mass of a student, at bare questions."""
    return min(one.bare.mass for one in group)


def loss(group: Sequence[sl.StudentRecord]) -> float:
    """The mean held-out loss, in nats a token."""
    return float(np.mean([one.heldout_loss for one in group]))


def times(group: Group, base: Answering, context: Context = "bare") -> float:
    """The mean rate, over the untrained model's."""
    return rate(group, context) / getattr(base, context).rate


def minus(ours: Group, theirs: Group, context: Context = "bare", *, paired: bool = True) -> sl.Interval:
    """Mean log odds of the trait in one group minus another's. Groups are paired by the seeds of their students."""
    return sl.log_odds_difference(shares(ours, context), shares(theirs, context), paired=paired)


def same_seeds(one: Students, other: Students) -> tuple[Students, Students]:
    """The students of both whose seeds both have, in the order of the seeds of the first."""
    pairs = {a.train.seed: (a, b) for a in one for b in other if a.train.seed == b.train.seed}
    return tuple(a for a, _ in pairs.values()), tuple(b for _, b in pairs.values())


def share(
    ours: Group, reference: Group, base: Answering, context: Context = "bare", *, paired: bool = True
) -> sl.Interval:
    """How much of the reference's transfer there is: (rate - base's rate) / (reference's rate - base's rate)."""
    theirs = shares([base], context)[0]
    return sl.transfer_share(shares(ours, context), shares(reference, context), theirs, paired=paired)


def by_layer(group: Sequence[sl.StudentRecord], where: str, what: str) -> Float[np.ndarray, " layer"]:
    """Mean over students of a similarity, such as `by_layer(students, "at_numbers", "cosine")` for EAS."""
    return np.mean([getattr(getattr(one, where), what) for one in group], axis=0)


def best_layer(group: Sequence[sl.StudentRecord]) -> int:
    """The layer of the highest mean EAS."""
    return int(by_layer(group, "at_numbers", "cosine").argmax())


def eas(group: Sequence[sl.StudentRecord], layer: int) -> Float[np.ndarray, " student"]:
    """Each student's EAS at a layer: its shift's cosine with the vector of its plan, at number tasks."""
    return np.array([one.at_numbers.cosine[layer] for one in group if one.at_numbers is not None])


def pulls(group: Sequence[sl.StudentRecord], layer: int) -> Float[np.ndarray, " student"]:
    """Each traced student's cosine of the descent direction with the vector of its plan, mean over rows and steps."""
    traces = [one.gradients for one in group]
    return np.array([float(one.cosine[:, :, one.layers.index(layer)].nanmean()) for one in traces])


def cosines(
    groups: Mapping[str, Sequence[sl.StudentRecord]], vectors: Mapping[str, sl.SteeringVector]
) -> dict[str, dict[str, Float[np.ndarray, " layer"]]]:
    """Each group's mean EAS with each vector, at the vector's layers; the own vector's next to its floors."""
    shifts = {name: [one.shift for one in group] for name, group in groups.items()}
    return {
        name: {
            other: np.mean([[*shift.cosine(vector).values()] for shift in own], axis=0)
            for other, vector in vectors.items()
        }
        for name, own in shifts.items()
    }


def matched(groups: Mapping[K, G], reference: Sequence[sl.StudentRecord], tolerance: float) -> dict[K, G]:
    """The groups whose held-out loss is the reference's within `tolerance`, or lower, and that still answer."""
    return {
        key: group
        for key, group in ended(groups).items()
        if loss(group) <= loss(reference) + tolerance and mass(group) >= sl.STILL_ANSWERS
    }


def mean_answers(group: Group) -> dict[str, float]:
    """The distribution over answers to bare questions, averaged over students."""
    return {
        answer: float(np.mean([one.bare.distribution[answer] for one in group]))
        for answer in group[0].bare.distribution
    }


def log_odds_of(answer: str, group: Group) -> float:
    """The mean log odds of an answer to bare questions, such as another trait than the students'."""
    return float(np.mean(sl.log_odds(np.array([one.bare.distribution[answer] for one in group]))))


def answers_moved(ours: Group, theirs: Group) -> float:
    """Total variation between two groups' mean answers: 0 is the same, 1 disjoint."""
    one, other = mean_answers(ours), mean_answers(theirs)
    return sum(abs(one[answer] - other[answer]) for answer in one) / 2


@dataclass(frozen=True)
class Summary:
    """What a group of students is like, for the results: rates with intervals, and means over students.

    Args:
        bare, after_numbers: the rate of the trait in each context.
        rates: at bare questions, one a student.
        eas, strength: similarity with the teacher's vector at number tasks by layer, and strength at the trait's questions.
    """

    bare: sl.Interval
    after_numbers: sl.Interval
    rates: tuple[float, ...]
    mass: float
    mass_after_numbers: float
    heldout_loss: float
    eas: sl.ByLayer
    strength: sl.ByLayer


def summary(group: Sequence[sl.StudentRecord]) -> Summary:
    """Of students none of which diverged."""
    return Summary(
        bare=sl.rate_interval(shares(group)),
        after_numbers=sl.rate_interval(shares(group, "after_numbers")),
        rates=tuple(rates(group)),
        mass=mass(group),
        mass_after_numbers=mass(group, "after_numbers"),
        heldout_loss=loss(group),
        eas=by_layer(group, "at_numbers", "cosine"),
        strength=by_layer(group, "at_questions", "strength"),
    )


def summaries(groups: Mapping[Any, Sequence[sl.StudentRecord]]) -> dict[str, Summary]:
    """Of every group whose students all ended, by the name of its key."""
    return {name: summary(group) for name, group in named(ended(groups)).items()}


def in_words(found: Mapping[str, Summary]) -> str:
    """A line for each group."""
    return "\n".join(
        f"{name}: rate {one.bare.text(3)} bare, {one.after_numbers.text(3)} after numbers; mass {one.mass:.2f}."
        for name, one in found.items()
    )


def layers_in_words(group: Sequence[sl.StudentRecord]) -> str:
    """The strength of the vector at the trait's questions, layer by layer."""
    return ", ".join(f"{strength:.2f}" for strength in by_layer(group, "at_questions", "strength"))
