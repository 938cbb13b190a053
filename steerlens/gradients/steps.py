"""Where the optimizer's step goes: how far each update moves the residual stream along a vector.

The gradient may point along the vector while the step, which the optimizer has rescaled, does not, or the other way
round. This is the second curve beside `GradientTrace`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.files import load_tensors, save_tensors
from steerlens.models.bridge import evaluating
from steerlens.residuals.capture import mean_residuals
from steerlens.short import cut, some
from steerlens.text.chat import Chat
from steerlens.text.positions import Positions
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from steerlens.students.step import TrainStep

KIND = "step-trace"


@dataclass(frozen=True)
class StepTrace:
    """(mean h after the step - mean h before it) . v_hat, in units of the residual stream.

    `along` is [step probe layer]: steps `steps`, probe chats `probes`, layers `layers`. Positive means that the step
    moved the student toward the vector.
    """

    layers: tuple[int, ...]
    probes: tuple[str, ...]
    steps: tuple[int, ...]
    along: Float[Tensor, "step probe layer"]

    def __repr__(self) -> str:
        moved = some([f"{value:+.3g}" for value in self.along.sum(0).mean(0).tolist()])
        return cut(
            f"StepTrace: {len(self.steps)} steps, probes {some(self.probes)}, layers {some(self.layers)}; moved "
            f"along v in all: {moved}"
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        save_tensors(
            path,
            {"along": self.along},
            kind=KIND,
            facts={"layers": self.layers, "probes": self.probes, "steps": self.steps},
        )

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "StepTrace":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or it does not hold a step trace.
        """
        tensors, facts = load_tensors(path, kind=KIND)
        return cls(tuple(facts["layers"]), tuple(facts["probes"]), tuple(facts["steps"]), tensors["along"])


@checked
def trace_steps(
    model: "TransformerBridge",
    vector: SteeringVector,
    probes: Mapping[str, Sequence[Chat]],
    *,
    every: int = 1,
    positions: Positions = "last_prompt",
) -> "StepRecorder":
    """A recorder for a student of `model`; pass its `before` and `after` to the training.

        recorder = trace_steps(model, vector, {"numbers": number_chats, "questions": question_chats}, every=10)
        train_student(model, samples, config, on_step=recorder.before, on_update=recorder.after)
        recorder.trace.along

    Args:
        probes: chats at which the student's mean residual is measured, by name.
        every: measure each so many steps; a measurement costs two forward passes of all probes.

    Raises:
        ValueError: the vector belongs to another model or layer, a probe has no chats, or `every` is below 1.
    """
    vector.check_model(model)
    if every < 1 or not probes or not all(len(chats) for chats in probes.values()):
        raise ValueError(
            f"Got every={every} and probes with {[len(chats) for chats in probes.values()]} chats. "
            "Give every >= 1, and at least one probe of at least one chat each."
        )
    return StepRecorder(vector, probes, every, positions)


class StepRecorder:
    """Measures while a student trains. After a resumed training it holds the steps since then."""

    def __init__(
        self, vector: SteeringVector, probes: Mapping[str, Sequence[Chat]], every: int, positions: Positions
    ) -> None:
        self._vector, self._probes, self._every = vector, dict(probes), every
        self._positions: Positions = positions
        self.means: dict[str, Float[Tensor, "layer d_model"]] | None = None
        """Mean residuals of the probes before the step that is being measured; None between measurements."""
        self._measured: dict[int, Float[Tensor, "probe layer"]] = {}

    def before(self, step: "TrainStep") -> None:
        """Measure before the step, where it is due."""
        if step.step % self._every == 0:
            self.means = self._read(step.model)

    def after(self, step: "TrainStep") -> None:
        """Measure after a step before which was measured."""
        if self.means is not None:
            before, after = map(self._along, (self.means, self._read(step.model)))
            self._measured[step.step] = (after - before).float()
            self.means = None

    @property
    def trace(self) -> StepTrace:
        """Everything measured so far."""
        shape = (0, len(self._probes), len(self._vector.layers))
        along = torch.stack(list(self._measured.values())) if self._measured else torch.zeros(shape)
        return StepTrace(self._vector.layers, tuple(self._probes), tuple(self._measured), along)

    def _read(self, model: "TransformerBridge") -> dict[str, Float[Tensor, "layer d_model"]]:
        """Mean residuals of the probes, without dropout."""
        with evaluating(model):
            return {
                name: mean_residuals(model, chats, layers=self._vector.layers, positions=self._positions)
                for name, chats in self._probes.items()
            }

    def _along(self, means: Mapping[str, Float[Tensor, "layer d_model"]]) -> Float[Tensor, "probe layer"]:
        """<mean residual, v_hat>, in float64."""
        unit = self._vector.unit.double()
        return torch.stack([(mean.double() * unit).sum(-1) for mean in means.values()])
