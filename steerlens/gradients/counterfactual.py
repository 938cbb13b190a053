"""Counterfactual training: what a student learns when its gradients cannot point along a vector."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.checks import a_function
from steerlens.forward import batch_in_flight
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.text.positions import Positions
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from steerlens.students.step import OnStart


def remove_component(
    gradient: Residual, direction: Float[Tensor, " d_model"], mask: Bool[Tensor, "batch pos"]
) -> Residual:
    """g <- g - <g, v_hat> v_hat at the masked positions."""
    unit = torch.nn.functional.normalize(direction, dim=-1).to(gradient)
    along = (gradient @ unit) * mask.to(gradient)  # [batch pos]
    return gradient - along[..., None] * unit


@checked
def without_component(vector: SteeringVector, *, positions: Positions = "all") -> "OnStart":
    """An `on_start` for `train_student` that takes the vector's direction out of every activation gradient.

        train_student(model, samples, config, on_start=without_component(vector))

    In the backward pass, dL/dh loses its component along v at each of the vector's layers before it goes on to the
    block's weights and to the blocks below; the forward pass is as it was. Weights above the highest of these layers
    are trained as before.

    Raises:
        ValueError: the vector belongs to another model, or to a layer that the model does not have.
    """

    @contextlib.contextmanager
    def watch(model: "TransformerBridge") -> Iterator[None]:
        vector.check_model(model)

        def edit(direction: Float[Tensor, " d_model"]):
            def attach(resid: Residual) -> None:
                batch = batch_in_flight.get()
                if batch is not None and resid.requires_grad:
                    mask = batch.position_mask(positions)
                    resid.register_hook(lambda gradient: remove_component(gradient, direction, mask))

            return attach

        with watch_residuals(
            model, {layer: edit(row) for layer, row in zip(vector.layers, vector.directions, strict=True)}
        ):
            yield

    return watch


@checked
def preventative_steering(
    vector: SteeringVector, *, strength: float = 1.0, positions: Positions | None = None
) -> "OnStart":
    """An `on_start` for `train_student` that adds the vector while the student trains, and takes it off afterwards.

        train_student(model, samples, config, on_start=preventative_steering(vector))

    h <- h + strength v in every forward of the training. The rows are then as likely as the vector makes them, and there
    is nothing left to learn along it.

    Reference: arXiv 2507.21509, preventative steering.
    """

    def watch(model: "TransformerBridge") -> contextlib.AbstractContextManager[None]:
        return steer(model, vector, strength=strength, positions=positions)

    return watch


def together(*watchers: "OnStart") -> "OnStart":
    """One `on_start` out of several, entered in this order; of two that hook gradients, the first sees them first."""
    for watcher in watchers:
        a_function(watcher, "watchers")

    @contextlib.contextmanager
    def watch(model: "TransformerBridge") -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for watcher in watchers:
                stack.enter_context(watcher(model))
            yield

    return watch
