"""Is the vector in the data's mean gradient? The pooled difference of two data sets, over the number of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.gradients.row_gradients import RowGradients, row_gradients
from steerlens.samples.encoded import encode_samples
from steerlens.samples.sample_set import SampleSet
from steerlens.short import some
from steerlens.text.positions import Positions
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Draws = Float[Tensor, "subset size layer"]


@dataclass(frozen=True)
class PooledCosine:
    """cos(d, v) for d the mean descent direction of teacher rows minus that of control rows.

    Each of the three is [subset size layer]: random subsets of `sizes[i]` rows of either kind, drawn with replacement.
    `shuffled` has teacher and control rows relabelled at random, `random` has Gaussian directions in place of v.
    """

    layers: tuple[int, ...]
    sizes: tuple[int, ...]
    observed: Draws
    shuffled: Draws
    random: Draws

    def __repr__(self) -> str:
        medians = some([f"{value:+.3f}" for value in self.observed[:, -1].median(0).values.tolist()])
        return (
            f"PooledCosine: cosine of teacher minus control with v at {self.sizes[-1]} rows, layers "
            f"{some(self.layers)}: {medians} (medians of {len(self.observed)} subsets)"
        )

    @staticmethod
    def interval(draws: Draws, level: float = 0.95) -> tuple[Float[Tensor, "size layer"], Float[Tensor, "size layer"]]:
        """The central `level` of the subsets' cosines."""
        tail = (1 - level) / 2
        return draws.quantile(tail, dim=0), draws.quantile(1 - tail, dim=0)


@checked
def pooled_difference_cosine(
    model: "TransformerBridge",
    teacher: SampleSet,
    control: SampleSet,
    vector: SteeringVector,
    *,
    sizes: Sequence[int] = tuple(2**k for k in range(13)),
    n_subsets: int = 200,
    positions: Positions = "last_prompt",
    seed: int = 0,
) -> PooledCosine:
    """cos(mean_N (-g_teacher) - mean_N (-g_control), v) of a fixed model, for every number N of rows.

    g_r = dL_r/dh, summed over `positions`, is the gradient of row r's own loss (nats, mean over its completion tokens).
    Positive means that descent on teacher rows, more than on control rows, points along v. One row's gradient is
    nearly all noise; the cosine grows with N where the data carry the vector. Sizes above the number of rows of
    either set are left out.

    Reference: arXiv 2606.00995, figure 7a, which plots cos(g_clean - g_teacher, v) with g the ascent direction.

    Raises:
        ValueError: the vector belongs to another model; a set is empty; no size is in 1..rows.
    """
    vector.check_model(model)
    one, other = (
        -row_gradients(model, encode_samples(model, rows), vector.layers, positions=positions)
        for rows in (teacher, control)
    )
    rows = min(len(teacher), len(control))
    kept = tuple(size for size in sizes if 1 <= size <= rows)
    if not kept:
        raise ValueError(f"sizes={tuple(sizes)} has none in 1..{rows}, the number of rows. Give smaller sizes.")
    return compare_pooled(one, other, vector, kept, n_subsets=n_subsets, seed=seed)


def compare_pooled(
    teacher: RowGradients,
    control: Float[Tensor, "layer control d_model"],
    vector: SteeringVector,
    sizes: tuple[int, ...],
    *,
    n_subsets: int,
    seed: int,
) -> PooledCosine:
    """The cosines of `pooled_difference_cosine`, from descent directions that were captured already."""
    rng, pooled = np.random.default_rng(seed), torch.cat([teacher, control], dim=1)
    n_teacher, v = teacher.shape[1], vector.unit
    gaussian = torch.from_numpy(rng.standard_normal((n_subsets, *v.shape))).float()
    draws: dict[str, list[Tensor]] = {"observed": [], "shuffled": [], "random": []}
    for size in sizes:
        for shuffle in (False, True):
            weights = _subset_weights(rng, n_teacher, pooled.shape[1] - n_teacher, size, n_subsets, shuffle)
            difference = einsum(weights, pooled, "subset row, layer row d_model -> subset layer d_model")
            draws["shuffled" if shuffle else "observed"].append(torch.cosine_similarity(difference, v, dim=-1))
            if not shuffle:
                draws["random"].append(torch.cosine_similarity(difference, gaussian, dim=-1))
    return PooledCosine(vector.layers, sizes, **{name: torch.stack(parts, dim=1) for name, parts in draws.items()})


def _subset_weights(
    rng: np.random.Generator, n_teacher: int, n_control: int, size: int, n_subsets: int, shuffle: bool
) -> Float[Tensor, "subset row"]:
    """Each subset's weights on all rows: +1/size a draw of a teacher row, -1/size a draw of a control row."""
    one, other = (rng.multinomial(size, np.full(n, 1 / n), n_subsets) for n in (n_teacher, n_control))
    weights = np.concatenate([one, -other], axis=1) / size
    return torch.from_numpy(rng.permuted(weights, axis=1) if shuffle else weights).float()
