"""How heavy the tail of gradient norms is: pure functions of one number a row. Not-a-number is left out."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked


@checked
def kurtosis(values: Float[Tensor, "..."]) -> float:
    """E[(x - mu)^4] / E[(x - mu)^2]^2: 3 for a Gaussian, larger for heavier tails; not-a-number without spread."""
    centred = _given(values) - _given(values).mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


@checked
def gini(values: Float[Tensor, "..."]) -> float:
    """sum_i (2 i - n - 1) x_(i) / (n sum_i x_i) of values >= 0, x_(i) ascending: 0 all equal, 1 - 1/n all in one."""
    ordered = _given(values).sort().values
    n = len(ordered)
    ranks = torch.arange(1, n + 1, dtype=ordered.dtype)
    return float(((2 * ranks - n - 1) * ordered).sum() / (n * ordered.sum()))


@checked
def top_share(values: Float[Tensor, "..."], share: float = 0.01) -> float:
    """What the largest `share` of the values (at least one) hold of the sum of all."""
    given = _given(values)
    return float(given.topk(max(1, math.ceil(share * len(given)))).values.sum() / given.sum())


def _given(values: Float[Tensor, "..."]) -> Float[Tensor, " row"]:
    flat = values.double().flatten().cpu()
    given = flat[~flat.isnan()]
    if not len(given):
        raise ValueError(f"Got {len(flat)} values, none of them a number. Give the norm of at least one row.")
    return given
