"""Entropy over rows, corrected for how few they are, and whether one set of rows is less varied than another."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

N_PERMUTATIONS, N_SUBSAMPLES = 999, 20


@dataclass(frozen=True)
class Entropy:
    """How varied something is over rows, in bits.

    Args:
        n, distinct: rows that have it, and different values among them.
        plug_in: of the frequencies; always too low where values are many and rows few.
        bits: plug_in + (distinct - 1) / (2 n ln 2), the Miller-Madow correction of its bias to first order.
    """

    n: int
    distinct: int
    plug_in: float
    bits: float

    @property
    def allowed(self) -> float:
        """log2 n: what so many rows can show at most, with another value in each."""
        return math.log2(self.n)

    @classmethod
    def of(cls, values: Sequence[Hashable]) -> "Entropy":
        """Of the values of all rows.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("Got no values, whose entropy is undefined. Give at least one row.")
        counts = np.fromiter(Counter(values).values(), float)
        plug_in = _plug_in(counts)
        return cls(len(values), len(counts), plug_in, plug_in + _miller_madow(len(counts), len(values)))


def less_varied_p(rows: Sequence[int], reference: Sequence[int], *, seed: int) -> float:
    """Permutation p-value of H(reference) - H(rows); the null is that rows and reference could be swapped."""
    _, codes = np.unique([*rows, *reference], return_inverse=True)
    rng, n = np.random.default_rng(seed), len(rows)

    def difference(order: np.ndarray) -> float:
        mine, theirs = (np.bincount(part) for part in (order[:n], order[n:]))
        (mine, theirs) = (counts[counts > 0] for counts in (mine, theirs))
        bias = _miller_madow(len(theirs), len(order) - n) - _miller_madow(len(mine), n)
        return _plug_in(theirs) - _plug_in(mine) + bias

    observed = difference(codes)
    at_least = sum(difference(rng.permutation(codes)) >= observed for _ in range(N_PERMUTATIONS))
    return (1 + at_least) / (1 + N_PERMUTATIONS)


def missing_bits(rows: Sequence[int], reference: Sequence[int], *, seed: int) -> float:
    """H(reference) - H(rows), both of as many rows as the smaller set has, since no correction takes all bias off."""
    rng, n = np.random.default_rng(seed), min(len(rows), len(reference))

    def entropy(values: Sequence[int]) -> float:
        return float(np.mean([Entropy.of(rng.permutation(values)[:n].tolist()).bits for _ in range(N_SUBSAMPLES)]))

    return entropy(reference) - entropy(rows)


def _plug_in(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))


def _miller_madow(distinct: int, n: int) -> float:
    return (distinct - 1) / (2 * n * math.log(2))
