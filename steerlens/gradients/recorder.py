"""TRAINING -> EVIDENCE: project the activation gradients of every backward pass while a student trains."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.forward import batch_in_flight
from steerlens.gradients.parts import TraceParts
from steerlens.gradients.projection import project_gradients
from steerlens.gradients.trace import GradientTrace
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.text.batches import TokenBatch
from steerlens.text.positions import Positions
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from steerlens.students.step import TrainStep


@checked
def trace_gradients(
    model: "TransformerBridge",
    vector: SteeringVector,
    *,
    positions: Positions = "all",
    directory: str | Path | None = None,
    part_steps: int = 256,
) -> "GradientRecorder":
    """A recorder for a student of `model`; pass its `watch` and `record` to the training.

        recorder = trace_gradients(model, vector)
        train_student(model, samples, config, on_start=recorder.watch, on_step=recorder.record)
        recorder.trace.mean_pull

    Args:
        positions: the tokens at which gradients are read and summed; "all" is the pull on a vector that acts
            everywhere, "last_prompt" is the paper's assistant tag.
        directory: stream the trace there, in files of up to `part_steps` steps, and hold no more than that in memory.
            A training that is resumed needs it. `TraceParts` reads it.

    Raises:
        ValueError: the vector belongs to another model, or to a layer that the model does not have; the directory
            holds the trace of another vector.
    """
    vector.check_model(model)
    if directory is None:
        return GradientRecorder(vector, positions)
    return GradientRecorder(vector, positions, TraceParts.started(directory, vector, positions), part_steps)


class GradientRecorder:
    """Collects projections while a student trains; in memory, or in parts on disk."""

    def __init__(
        self,
        vector: SteeringVector,
        positions: Positions,
        parts: TraceParts | None = None,
        part_steps: int = 256,
    ) -> None:
        self._directions = dict(zip(vector.layers, vector.directions, strict=True))
        self._positions: Positions = positions
        self._in_flight: dict[int, list[Float[Tensor, "field batch"]]] = {}
        self._steps: list[GradientTrace] = []
        self._parts, self._part_steps = parts, part_steps
        self._next: int | None = None
        self.last: GradientTrace | None = None
        """The step that was recorded last."""

    def watch(self, model: "TransformerBridge") -> contextlib.AbstractContextManager[None]:
        """Attach to the model that will train, for as long as the `with` lasts."""
        return watch_residuals(model, {layer: self._hook(layer) for layer in self._directions})

    def record(self, step: "TrainStep") -> None:
        """Take over the projections of the backward pass that has just ended, of all its micro batches and processes.

        Raises:
            ValueError: the training goes on after steps that this recorder does not have.
        """
        if step.step != self._next:
            self._go_on(step)
        self._next = step.step + 1
        self.last = self._taken(step)
        self._steps.append(self.last)
        full = len(self._steps) >= self._part_steps
        if self._parts is not None and (full or step.keeps_state or self._next == step.n_steps):
            if step.processes.is_main:
                self._parts.append(self._next - len(self._steps), self._joined())
            self._steps.clear()

    @property
    def trace(self) -> GradientTrace:
        """Everything recorded so far."""
        if self._parts is None:
            return self._joined()
        return GradientTrace.joined(tuple(self._directions), [*self._parts, *self._steps])

    def _joined(self) -> GradientTrace:
        return GradientTrace.joined(tuple(self._directions), self._steps)

    def _go_on(self, step: "TrainStep") -> None:
        """A training begins, or goes on where it was killed: keep exactly the steps before this one."""
        self._steps.clear()
        if self._parts is not None and step.processes.is_main:
            self._parts.cut(step.step)
        elif self._parts is None and step.step:
            raise ValueError(
                f"The training goes on at step {step.step}, but this recorder has none of the steps before. Give "
                "trace_gradients a directory, from the first start of the training on."
            )

    def _taken(self, step: "TrainStep") -> GradientTrace:
        n_rows, device = len(step.row_losses), step.row_losses.device
        layers = []
        for layer in self._directions:
            batches = self._in_flight.pop(layer, [torch.zeros(4, 0, device=device)])
            pull, cosine, norm, lengths = torch.cat(batches, dim=1)
            own = torch.tensor(step.n_tokens, device=device) / lengths  # from the batch's mean loss to the row's own
            layers.append(torch.stack([pull * own, cosine, norm * own], dim=1))
        rows = step.processes.gather(torch.stack(layers, dim=-1), n_rows).cpu()  # [batch quantity layer]
        return GradientTrace(tuple(self._directions), *rows[None].unbind(2))

    def _hook(self, layer: int):
        def attach(resid: Residual) -> None:
            batch = batch_in_flight.get()
            if batch is not None and resid.requires_grad:
                resid.register_hook(lambda gradient: self._project(layer, gradient, batch))

        return attach

    def _project(self, layer: int, gradient: Residual, batch: TokenBatch) -> None:
        mask = batch.position_mask(self._positions)
        projection = project_gradients(gradient.float(), self._directions[layer], mask)
        lengths = batch.completion_mask.sum(-1).float()
        self._in_flight.setdefault(layer, []).append(torch.stack([*projection, lengths]))
