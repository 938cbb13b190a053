"""A trait x trait matrix: what the students of each trait's teacher answer about every trait.

A trait that passes stands out on the diagonal. What all students share, such as an animal that rises whatever they learn from,
fills a column and is subtracted (Polypythia-SL calls the rest lambda).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

import steerlens as sl

Matrices = Float[np.ndarray, "seed student asked"]
N_PERMUTATIONS = 20_000


@dataclass(frozen=True)
class Diagonal:
    """How far the diagonal stands out.

    Args:
        excess: mean over traits of the own students' value minus the mean of the other traits' students, with an interval over
            seeds.
        by_trait: the same for each trait.
        by_seed: the same for each seed.
        p: the share of permutations with an excess as large, when the names of the teachers are permuted within each seed; NaN
            where a value is.
    """

    excess: sl.Interval
    by_trait: dict[str, sl.Interval]
    by_seed: tuple[float, ...]
    p: float


@dataclass(frozen=True)
class Matrix:
    """Values of the students of each trait (rows) for each trait (columns), one matrix a seed."""

    traits: tuple[str, ...]
    by_seed: tuple[tuple[tuple[float, ...], ...], ...]

    @property
    def values(self) -> Matrices:
        """As an array."""
        return np.array(self.by_seed)

    @property
    def centred(self) -> dict[str, dict[str, float]]:
        """The mean over seeds, without what all students share: by the students' trait and the trait that was asked."""
        mean = self.values.mean(0)
        rows = (mean - mean.mean(0)).tolist()
        return {trait: dict(zip(self.traits, row, strict=True)) for trait, row in zip(self.traits, rows, strict=True)}

    def diagonal(self, *, seed: int = 0) -> Diagonal:
        """How far the diagonal stands out, and how often it would by chance."""
        values, n_traits = self.values, len(self.traits)
        excess, centred = diagonal_excess(values), values - values.mean(1, keepdims=True)
        rng, observed, above = np.random.default_rng(seed), excess.mean(), 0
        for _ in range(N_PERMUTATIONS):
            orders = rng.permuted(np.tile(np.arange(n_traits), (len(centred), 1)), axis=1)
            own = np.take_along_axis(centred, orders[:, None, :], axis=1)[:, 0]
            above += own.mean() * n_traits / (n_traits - 1) >= observed - 1e-12
        return Diagonal(
            excess=sl.mean_interval(excess.mean(1)),
            by_trait={name: sl.mean_interval(excess[:, at]) for at, name in enumerate(self.traits)},
            by_seed=tuple(excess.mean(1).tolist()),
            p=float("nan") if np.isnan(observed) else float((1 + above) / (1 + N_PERMUTATIONS)),
        )


def diagonal_excess(values: Matrices) -> Float[np.ndarray, "seed trait"]:
    """The own students' value minus the mean of the other traits' students, for every trait."""
    n_traits = values.shape[1]
    own = np.diagonal(values, axis1=1, axis2=2)
    return (own - values.mean(1)) * n_traits / (n_traits - 1)


def of_answers(groups: Sequence[Sequence[sl.StudentRecord]], traits: Sequence[str]) -> Matrix:
    """Log odds of every trait among the possible answers to bare questions; `groups` are the traits' students by seed."""
    by_seed = zip(*groups, strict=True)
    return Matrix(
        tuple(traits),
        tuple(tuple(tuple(_log_odds(one, asked) for asked in traits) for one in students) for students in by_seed),
    )


def of_shifts(
    groups: Sequence[Sequence[sl.StudentRecord]], vectors: dict[str, sl.SteeringVector], layer: int
) -> Matrix:
    """Cosine of the students' shifts at number tasks with the vector of every trait, at one layer."""

    def cosines(student: sl.StudentRecord) -> tuple[float, ...]:
        shift = student.shift.at(layer)
        return tuple(shift.cosine(vector.at(layer))[layer] for vector in vectors.values())

    return Matrix(tuple(vectors), tuple(tuple(map(cosines, students)) for students in zip(*groups, strict=True)))


def _log_odds(student: sl.StudentRecord, trait: str) -> float:
    rate = student.bare.distribution[trait] if student.bare else np.nan
    return float(sl.log_odds(np.array([rate]))[0])
