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
from jaxtyping import Float, Int, Int8
from torch import Tensor

RIDGE = 0.1
"""F is estimated from the rows and ridged by this share of its mean eigenvalue."""

N_FLIPS = 1999

BLOCK = 256
"""Rows that are added up at a time once there are sums."""

STRENGTHS = (0.25, 0.5, 1.0, 1.5)
"""Strengths of the step; the best of them is kept, of the rows and of every swap alike."""

Halves = tuple[Int[Tensor, " some"], Int[Tensor, " others"]]
Signs = Int8[Tensor, "flip row"]


@dataclass(frozen=True)
class Scores:
    """Differences of scores at one layer, row minus placebo, as far as the test needs them.

    Args:
        fisher: F, half of the differences' second moment, which no swap changes.
        means: of either half's differences under every set of signs, [half flip d_model]; the first set changes none.
        sizes: rows in either half.
    """

    fisher: Float[Tensor, "d_model d_model"]
    means: Float[Tensor, "half flip d_model"]
    sizes: tuple[int, int]

    @property
    def vectors(self) -> Float[Tensor, "flip d_model"]:
        """F^-1 D under every set of signs: what all rows say, and what rows and placebos that are swapped say."""
        one, other = self.sizes
        return self._solved((one * self.means[0] + other * self.means[1]) / (one + other))

    @property
    def half_vectors(self) -> Float[Tensor, "half d_model"]:
        """F^-1 D of either half alone."""
        return self._solved(self.means[:, 0])

    @property
    def heldout_gains(self) -> Float[Tensor, " flip"]:
        """Gain of each half's vector on the other half, nats a row, at the best of `STRENGTHS`."""
        ours, theirs = torch.linalg.solve_triangular(self._root, self.means.mT, upper=False)  # [d_model flip] each
        agreement, size = (ours * theirs).sum(0), (ours.square() + theirs.square()).sum(0)
        return torch.stack([s * agreement - s**2 / 4 * size for s in STRENGTHS]).amax(0)

    def along(self, vectors: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "flip n"]]:
        """v' D summed over all rows, in nats, and under every set of signs in standard deviations of these."""
        one, other = self.sizes
        sums = (one * self.means[0] + other * self.means[1]) @ vectors.T
        spread = (2 * (one + other)) ** 0.5 * self.fisher_norm(vectors)
        return sums[0], sums / spread.clamp(min=torch.finfo(torch.float32).tiny)

    def fisher_norm(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """sqrt(v' F v): nats^1/2 a row; the length of a vector in terms of what it does to predictions."""
        return (vectors @ self.fisher * vectors).sum(-1).clamp(min=0).sqrt()

    def visible_cosine(self, one: Float[Tensor, " d_model"], other: Float[Tensor, " d_model"]) -> float:
        """v' F w / sqrt(v' F v w' F w): the cosine of two vectors' effects on the rows' likelihoods.

        Directions that change no prediction, in which no data can show a vector, do not count.
        """
        lengths = self.fisher_norm(torch.stack([one, other])).prod()
        return float(one @ self.fisher @ other / lengths.clamp(min=torch.finfo(torch.float32).tiny))

    @property
    def _root(self) -> Float[Tensor, "d_model d_model"]:
        """The lower triangular root of F and its ridge."""
        ridge = RIDGE * self.fisher.diagonal().mean() + torch.finfo(torch.float32).tiny
        return torch.linalg.cholesky(self.fisher + ridge * torch.eye(len(self.fisher)))

    def _solved(self, means: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        return torch.cholesky_solve(means.T, self._root).T


class ScoreSums:
    """Collects the `Scores` of every layer while differences come in, without keeping these.

    They wait until there are as many of them as sums take room; then they are added up. Memory is at most
    2 d_model (d_model + 2 flips) numbers a layer, for any number of rows.
    """

    def __init__(self, n_layers: int, n_rows: int, *, n_flips: int = N_FLIPS, seed: int = 0) -> None:
        self.halves = random_halves(n_rows, seed=seed)
        unchanged = torch.ones(1, n_rows, dtype=torch.int8)
        self._signs = torch.cat([unchanged, random_signs(n_flips, n_rows, seed=seed)])
        self._half = torch.zeros(n_rows, dtype=torch.long).index_fill(0, self.halves[1], 1)
        self._rows = list[Tensor]()
        self._waiting: list[list[Float[Tensor, "some d_model"]]] = [[] for _ in range(n_layers)]
        self._sums: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    def add(self, rows: Sequence[int], differences: Float[Tensor, "layer some d_model"]) -> None:
        """The differences of some more rows, which are these of all."""
        self._rows.append(torch.tensor(rows))
        for waiting, layer in zip(self._waiting, differences, strict=True):
            waiting.append(layer)
        room = differences.shape[-1] + 2 * len(self._signs) if self._sums[0] is None else BLOCK
        if sum(map(len, self._rows)) >= room:
            self._sums = [self._summed(layer) for layer in range(len(self._sums))]
            self._rows.clear()

    def layer(self, index: int) -> Scores:
        """Of the rows so far, which have to be all."""
        second, sums = self._summed(index, forget=False)
        one, other = map(len, self.halves)
        means = sums / torch.tensor([one, other])[:, None, None]
        return Scores(second / (2 * (one + other)), means, (one, other))

    def _summed(self, layer: int, *, forget: bool = True) -> tuple[Tensor, Tensor]:
        """A layer's sums so far: of the differences' outer products, and of them under every set of signs, by half."""
        before, waiting = self._sums[layer], self._waiting[layer]
        if not waiting:
            assert before is not None
            return before
        rows, differences = torch.cat(self._rows), torch.cat(waiting)
        signs, half = self._signs[:, rows].float(), self._half[rows]
        second = differences.T @ differences
        sums = torch.stack([signs[:, half == part] @ differences[half == part] for part in (0, 1)])
        if forget:
            waiting.clear()
        return (second, sums) if before is None else (before[0] + second, before[1] + sums)


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


def score_test(scores: Iterable[Scores], layers: Sequence[int]) -> ScoreTest:
    """Test the same pairs of rows and placebos at several layers at once; `scores` are looked at one after the other."""
    gains = torch.stack([one.heldout_gains for one in scores])  # [layer flip]
    return ScoreTest(tuple(layers), tuple(gains[:, 0].tolist()), tuple(gains[:, 1:].amax(0).tolist()))


def random_signs(n_flips: int, n_rows: int, *, seed: int) -> Signs:
    """+1 or -1 with equal chances."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(0, 2, (n_flips, n_rows), generator=generator, dtype=torch.int8) - 1


def random_halves(n_rows: int, *, seed: int) -> Halves:
    """The rows' indices in two parts."""
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
    return order[: n_rows // 2], order[n_rows // 2 :]
