"""Projections of activation gradients onto a direction: pure functions of tensors."""

from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor


class Projection(NamedTuple):
    """What one row's gradient says about a direction; each field is [batch].

    `pull` is in nats per unit of residual norm, `cosine` in -1..1, `norm` in nats per unit.
    """

    pull: Float[Tensor, " batch"]
    cosine: Float[Tensor, " batch"]
    norm: Float[Tensor, " batch"]


def project_gradients(
    gradients: Float[Tensor, "batch pos d_model"],
    direction: Float[Tensor, " d_model"],
    mask: Bool[Tensor, "batch pos"],
) -> Projection:
    """pull_r = <-g_r, v_hat> with g_r = sum over masked positions of dL_r/dh, the descent direction's share.

    pull_r is the derivative of -L_r with respect to a multiple of v_hat added at all masked positions:
    positive means that training pushes toward the vector. (The paper's code reports the ascent direction,
    where learning shows as a negative cosine.)
    """
    unit = torch.nn.functional.normalize(direction, dim=-1).to(gradients)
    descent = -einsum(gradients, mask.to(gradients), "batch pos d_model, batch pos -> batch d_model")
    pull, norm = descent @ unit, descent.norm(dim=-1)
    return Projection(pull.float(), (pull / norm.clamp(min=1e-30)).float(), norm.float())
