"""What is done to a residual: a direction added, taken out, or taken from the base model."""

import torch
from jaxtyping import Float
from torch import Tensor

Residual = Float[Tensor, "*batch d_model"]
Directions = Float[Tensor, "*direction d_model"]
"""One direction, or several."""

SAME = 1e-4
"""Directions whose unit vectors are closer than about this are one, and add nothing to the span."""


def add(resid: Residual, direction: Float[Tensor, "*#batch d_model"]) -> Residual:
    """h + v."""
    return resid + direction


def project_out(resid: Residual, directions: Directions) -> Residual:
    """h - <h, v_hat> v_hat: directional ablation (arXiv 2406.11717). Of several directions, the whole span goes."""
    return resid - component(resid, span(directions))


def replace(resid: Residual, directions: Directions, base: Residual) -> Residual:
    """h + <h_base - h, v_hat> v_hat: the component along v, or in a span, taken from the base model instead.

    Unlike `project_out` it is the identity where the model is its base (arXiv 2606.00995, section 3.2).
    """
    return resid + component(base - resid, span(directions))


def component(resid: Residual, units: Float[Tensor, "rank d_model"]) -> Residual:
    """The part of the residuals in the span of orthonormal directions."""
    return sum(((resid @ unit)[..., None] * unit for unit in units), start=torch.zeros_like(resid))


def span(directions: Directions) -> Float[Tensor, "rank d_model"]:
    """Orthonormal directions with the same span; a single zero stays zero."""
    units = torch.nn.functional.normalize(directions.reshape(-1, directions.shape[-1]), dim=-1)
    if len(units) == 1:
        return units
    _, sizes, orthonormal = torch.linalg.svd(units, full_matrices=False)
    return orthonormal[sizes > SAME]
