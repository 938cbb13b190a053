"""Which of several known vectors would explain rows, or none of these.

Each row has a number for each candidate, how much likelier the vector makes it to first order, and so has its placebo. What the
candidates do alike is taken off. The largest sum of differences, row minus placebo, in standard deviations, is compared with
that of rows and placebos swapped at random: exact where the rows are the model's own, and corrected for the candidates.

Rows by another writer differ from placebos for other reasons, and move all candidates up or down, some of them most. So the
best candidate has to explain the others as well. If it alone is behind the rows, then to first order each other candidate has
z_k = r_k z_best, with r_k their correlation under swaps, and what is left of z_k is noise. The best one's z is compared with
what is left: both grow with the number of rows where something else is behind them, z alone where the best one is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from steerlens.short import cut

TINY = 1e-6

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
        outlier_p: of the best one's z, in units of what it leaves unexplained in the others, by Student's t; corrected as well.
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
                f"The rows are not the model's own (p = {self.p_value:.2g}), and {said}, but it does not "
                f"explain the other {len(self.candidates) - 1} candidates (p = {self.outlier_p:.2g})."
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
        outlier_p=outlier_p(z.double()),
        n_rows=n_rows,
        false_alarm_rate=false_alarm_rate,
    )


def outlier_p(z: Float[Tensor, "flip candidate"]) -> float:
    """P-value of the best candidate's z against what it does not explain in the others, corrected for their number."""
    from scipy.stats import t as student_t

    best = int(z[0].argmax())
    others = [index for index in range(z.shape[1]) if index != best]
    alike = (z[1:, others] * z[1:, [best]]).mean(0) / z[1:, best].square().mean().clamp(min=TINY)
    left = (z[0, others] - alike * z[0, best]) / (1 - alike.square()).clamp(min=TINY).sqrt()
    unit = left.square().mean().sqrt().clamp(min=1.0)  # of swapped rows it is 1
    return float(min(1.0, z.shape[1] * student_t.sf(float(z[0, best] / unit), len(others))))
