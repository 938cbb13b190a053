"""Do two sets of rows pull at the residual stream alike? A score test with an exact null.

A row's score s = d log q_v(y | x) / dv at v = 0 says how its log-likelihood grows with a vector v that is added at every
token. Rows that the model wrote itself have scores with mean 0 and covariance F, the Fisher information; rows that were
written under a small v have mean F v. So with D the mean over rows of their score minus their placebo's,

    v = F^-1 D

explains the rows: a natural gradient step, one backward pass and no search (Rao, 1948). A vector s v_A recovered from one
half of the rows, at strength s, gains on the other half, with D_B its mean and to second order,

    gain = s v_A' D_B - s^2 / 2 v_A' F v_A        nats a row.

If a row and its placebo come from one distribution, swapping them changes nothing: the gain under random swaps is the
null, exact for any number of rows, dimensions and layers (a sign-flip test).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 0.1
"""F is estimated from the rows and ridged by this share of its mean eigenvalue."""

N_FLIPS = 1999

STRENGTHS = (0.25, 0.5, 1.0, 1.5)
"""Strengths of the step; the best of them is kept, of the rows and of every swap alike."""


Halves = tuple[Int[Tensor, " some"], Int[Tensor, " others"]]


@dataclass(frozen=True)
class Scores:
    """Differences of scores at one layer, row minus placebo.

    `whitened` are the same in coordinates in which F is the identity; `back` turns a mean of these into a vector.
    """

    differences: Float[Tensor, "row d_model"]
    whitened: Float[Tensor, "row coordinate"]
    back: Float[Tensor, "coordinate d_model"]

    @classmethod
    def of(cls, differences: Float[Tensor, "row d_model"]) -> "Scores":
        """F is half of the differences' second moment, which no swap changes."""
        n_rows, d_model = differences.shape
        eigenvalues, axes = _principal(differences / (2 * n_rows) ** 0.5)
        ridge = RIDGE * eigenvalues.sum() / d_model
        scale = (eigenvalues + ridge).sqrt().clamp(min=torch.finfo(axes.dtype).tiny)
        return cls(differences, differences @ axes.T / scale, axes / scale[:, None])

    def vectors(self, signs: Float[Tensor, "flip row"]) -> Float[Tensor, "flip d_model"]:
        """F^-1 D under each set of signs: rows and placebos are swapped where it is -1."""
        return self._means(signs) @ self.back

    def heldout_gains(self, signs: Float[Tensor, "flip row"], halves: Halves) -> Float[Tensor, " flip"]:
        """Gain of each half's vector on the other half, nats a row, at the best of `STRENGTHS`."""
        ours, theirs = (self._means(signs[:, half], half) for half in halves)
        agreement, size = (ours * theirs).sum(-1), (ours.square() + theirs.square()).sum(-1)
        return torch.stack([s * agreement - s**2 / 4 * size for s in STRENGTHS]).amax(0)

    def _means(self, signs: Float[Tensor, "flip some"], rows: Tensor | slice = slice(None)) -> Float[Tensor, "flip c"]:
        return signs @ self.whitened[rows] / signs.shape[1]

    def fisher_norm(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """sqrt(v' F v): nats^1/2 a row; the length of a vector in terms of what it does to predictions."""
        return self._effects(vectors).norm(dim=-1)

    def visible_cosine(self, one: Float[Tensor, " d_model"], other: Float[Tensor, " d_model"]) -> float:
        """v' F w / sqrt(v' F v w' F w): the cosine of two vectors' effects on the rows' likelihoods.

        Directions that change no prediction, in which no data can show a vector, do not count.
        """
        return float(torch.cosine_similarity(self._effects(one[None]), self._effects(other[None]))[0])

    def _effects(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n row"]:
        return vectors @ self.differences.T / (2 * len(self.differences)) ** 0.5


def _principal(rows: Float[Tensor, "row d_model"]) -> tuple[Float[Tensor, " axis"], Float[Tensor, "axis d_model"]]:
    """Eigenvalues and orthonormal axes of rows' rows, through the smaller of the two Gram matrices."""
    n_rows, d_model = rows.shape
    if d_model <= n_rows:
        eigenvalues, axes = torch.linalg.eigh(rows.T @ rows)
        return eigenvalues.clamp(min=0), axes.T
    eigenvalues, left = torch.linalg.eigh(rows @ rows.T)
    return eigenvalues.clamp(min=0), torch.nn.functional.normalize(left.T @ rows, dim=-1)


@dataclass(frozen=True)
class ScoreTest:
    """`gains` [layer] on held-out rows, in nats a row; `null` [flip] the largest of any layer under each swap."""

    layers: tuple[int, ...]
    gains: tuple[float, ...]
    null: tuple[float, ...]

    @property
    def layer(self) -> int:
        """Where the gain is largest."""
        return self.layers[max(range(len(self.layers)), key=self.gains.__getitem__)]

    @property
    def p_value(self) -> float:
        """Share of swaps whose largest gain at any layer reaches the rows': corrected for the layers tried."""
        reached = sum(value >= max(self.gains) for value in self.null)
        return (1 + reached) / (1 + len(self.null))


def score_test(
    scores: Iterable[Scores], layers: Sequence[int], halves: Halves, *, n_flips: int = N_FLIPS, seed: int = 0
) -> ScoreTest:
    """Test the same pairs of rows and placebos at several layers at once; `scores` are looked at one after the other."""
    n_rows = sum(map(len, halves))
    signs = torch.cat([torch.ones(1, n_rows), random_signs(n_flips, n_rows, seed=seed)])
    gains = torch.stack([one.heldout_gains(signs, halves) for one in scores])  # [layer flip]
    return ScoreTest(tuple(layers), tuple(gains[:, 0].tolist()), tuple(gains[:, 1:].amax(0).tolist()))


def random_signs(n_flips: int, n_rows: int, *, seed: int) -> Float[Tensor, "flip row"]:
    """+1 or -1 with equal chances."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (n_flips, n_rows), generator=generator).float() * 2 - 1


def random_halves(n_rows: int, *, seed: int) -> Halves:
    """The rows' indices in two parts."""
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
    return order[: n_rows // 2], order[n_rows // 2 :]
