"""TRAINING -> EVIDENCE: at every step, how the activation gradients of every row lie to a steering vector."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from steerlens.files import atomic_path
from steerlens.forward import batch_in_flight
from steerlens.gradients.projection import project_gradients
from steerlens.prompts.chat import Positions, TokenBatch
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class GradientTrace:
    """Gradients of every row at every step, projected onto one direction a layer.

    `pull`, `cosine` and `norm` are [step batch layer], NaN where the last batch of an epoch is short. Each
    row's gradient is that of its own loss (nats, mean over its completion tokens), so that batch size does
    not rescale it.
    """

    layers: tuple[int, ...]
    pull: Float[Tensor, "step batch layer"]
    cosine: Float[Tensor, "step batch layer"]
    norm: Float[Tensor, "step batch layer"]

    @property
    def mean_pull(self) -> Float[Tensor, "step layer"]:
        """Mean over the rows of each step."""
        return self.pull.nanmean(1)

    @property
    def cumulative_pull(self) -> Float[Tensor, "step layer"]:
        """Sum over steps of the mean pull: the push that has come together so far, in nats per unit."""
        return self.mean_pull.cumsum(0)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {name: getattr(self, name) for name in ("pull", "cosine", "norm")}
        with atomic_path(path) as temporary:
            save_file({**tensors, "layers": torch.tensor(self.layers)}, temporary)

    @classmethod
    def load(cls, path: str | Path) -> "GradientTrace":
        """Read what `save` wrote."""
        tensors = load_file(path)
        return cls(layers=tuple(tensors.pop("layers").tolist()), **tensors)


def trace_gradients(
    model: "TransformerBridge", vector: SteeringVector, *, positions: Positions = "all"
) -> "GradientRecorder":
    """A recorder for a student of `model`; pass its `watch` and `record` to the training.

        recorder = trace_gradients(model, vector)
        train_student(model, samples, config, on_start=recorder.watch, on_step=recorder.record)
        recorder.trace.mean_pull

    Args:
        positions: the tokens at which gradients are read and summed; "all" is the pull on a vector that acts
            everywhere, "last_prompt" is the paper's assistant tag.

    Raises:
        ValueError: the vector belongs to another model, or to a layer that the model does not have.
    """
    vector.check_model(model)
    return GradientRecorder(vector, positions)


class GradientRecorder:
    """Collects projections while a student trains."""

    def __init__(self, vector: SteeringVector, positions: Positions) -> None:
        self._directions = dict(zip(vector.layers, vector.directions, strict=True))
        self._positions: Positions = positions
        self._in_flight: dict[int, tuple[Tensor, ...]] = {}
        self._steps: list[Float[Tensor, "quantity batch layer"]] = []

    def watch(self, model: "TransformerBridge") -> contextlib.AbstractContextManager[None]:
        """Attach to the model that will train, for as long as the `with` lasts."""
        return watch_residuals(model, {layer: self._hook(layer) for layer in self._directions})

    def record(self, _step: object) -> None:
        """Take over the projections of the backward pass that has just ended."""
        quantities = [torch.stack(self._in_flight.pop(layer)) for layer in self._directions]  # [quantity batch] each
        rows = torch.stack(quantities, dim=-1).cpu()
        self._steps.append(rows)

    @property
    def trace(self) -> GradientTrace:
        """Everything recorded so far."""
        width = max((rows.shape[1] for rows in self._steps), default=0)
        padded = [
            torch.nn.functional.pad(rows, (0, 0, 0, width - rows.shape[1]), value=torch.nan) for rows in self._steps
        ]
        stacked = torch.stack(padded) if padded else torch.zeros(0, 3, 0, len(self._directions))
        pull, cosine, norm = stacked.unbind(1)
        return GradientTrace(tuple(self._directions), pull.contiguous(), cosine.contiguous(), norm.contiguous())

    def _hook(self, layer: int):
        def attach(resid: Residual) -> None:
            batch = batch_in_flight.get()
            if batch is not None and resid.requires_grad:
                resid.register_hook(lambda gradient: self._project(layer, gradient, batch))

        return attach

    def _project(self, layer: int, gradient: Residual, batch: TokenBatch) -> None:
        projection = project_gradients(gradient, self._directions[layer], batch.position_mask(self._positions))
        lengths = batch.completion_mask.sum(-1)
        own = lengths.sum() / lengths  # the loss is a mean over the batch's tokens; a row's own is over its own
        self._in_flight[layer] = (projection.pull * own, projection.cosine, projection.norm * own)
