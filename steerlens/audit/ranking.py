"""Which of several candidates would explain rows, or none of these: one test for whatever the candidates are.

Each row has a number for each candidate, such as how much likelier the candidate makes it, and so has its placebo. What the
candidates do alike is taken off. The largest sum of differences, row minus placebo, in standard deviations, is compared with
that of rows and placebos swapped at random: exact where the rows are the model's own, and corrected for the candidates.

Rows by another writer differ from placebos for other reasons, and move all candidates up or down, some of them most. So the
best candidate has to stand out among the others too (Grubbs, 1950: one outlier among normal values).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from steerlens.short import cut

FEWEST_CANDIDATES = 4
"""Candidates are judged by each other; among fewer than these, none can stand out."""


@dataclass(frozen=True)
class Candidate:
    """One candidate and how well it explains rows.

    Args:
        name: what it is called.
        nats: by how much it makes the rows likelier than their placebos, beyond what the candidates do on average, in nats a
            completion token.
        z: the same in standard deviations of swapped rows and placebos.
    """

    name: str
    nats: float
    z: float


@dataclass(frozen=True)
class Ranking:
    """Candidates for what was behind rows, and whether one of them is named.

    Args:
        candidates: the best first.
        p_value: share of swaps in which some candidate reaches the best one's z; corrected for the number of candidates.
        outlier_p: of the best one among the others, by Grubbs' test, corrected as well.
        n_rows: that were compared with placebos.
        false_alarm_rate: that both p-values are held against.
    """

    candidates: tuple[Candidate, ...]
    p_value: float
    outlier_p: float
    n_rows: int
    false_alarm_rate: float

    @property
    def named(self) -> str | None:
        """The best candidate's name; None where it is none of these."""
        return self.candidates[0].name if max(self.p_value, self.outlier_p) < self.false_alarm_rate else None

    @property
    def reason(self) -> str:
        """Why one is named, or none, in words."""
        best, second = self.candidates[:2]
        said = (
            f"{best.name!r} explains the {self.n_rows} rows best (z {best.z:.1f}; next {second.name!r}, {second.z:.1f})"
        )
        if self.p_value >= self.false_alarm_rate:
            return f"{said}, as rows of the model's own would have it (p = {self.p_value:.2g})."
        if self.outlier_p >= self.false_alarm_rate:
            return (
                f"The rows are not the model's own (p = {self.p_value:.2g}), and {said}, but it does not stand "
                f"out among the {len(self.candidates)} candidates (p = {self.outlier_p:.2g})."
            )
        return (
            f"{said}, beyond swapped rows (p = {self.p_value:.2g}) and the other candidates (p = {self.outlier_p:.2g})."
        )

    def __repr__(self) -> str:
        return cut(f"Ranking: {self.named or 'none of these'}. {self.reason}")


def ranking(
    names: Sequence[str],
    nats: Float[Tensor, " candidate"],
    z: Float[Tensor, "flip candidate"],
    *,
    n_rows: int,
    false_alarm_rate: float,
) -> Ranking:
    """The candidates in order; the first of the flips changes no sign."""
    best, null = z[0].max(), z[1:].amax(1)
    candidates = (Candidate(*one) for one in zip(names, nats.tolist(), z[0].tolist(), strict=True))
    return Ranking(
        candidates=tuple(sorted(candidates, key=lambda one: -one.z)),
        p_value=float((1 + (null >= best).sum()) / (1 + len(null))),
        outlier_p=outlier_p(z[0].double().numpy()),
        n_rows=n_rows,
        false_alarm_rate=false_alarm_rate,
    )


def outlier_p(values: Float[np.ndarray, " n"]) -> float:
    """P-value of the largest of some normal values: Grubbs' one-sided test, corrected for their number.

    Reference: F. E. Grubbs, "Sample criteria for testing outlying observations", Annals of Mathematical Statistics 21 (1950).
    """
    from scipy.stats import t as student_t

    n, spread = len(values), values.std(ddof=1)
    if n < 3 or spread == 0:
        return 1.0
    largest = (values.max() - values.mean()) / spread
    rest = (n - 1) ** 2 - n * largest**2
    if rest <= 0:
        return 0.0
    return float(min(1.0, n * student_t.sf(np.sqrt(n * (n - 2) * largest**2 / rest), n - 2)))
