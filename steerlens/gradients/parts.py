"""A gradient trace on disk, in parts that are written while a student trains and read when they are needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from steerlens.files import read_json, reading, remove_partial, write_json
from steerlens.gradients.trace import GradientTrace
from steerlens.text.positions import Positions
from steerlens.vectors.vector import SteeringVector

DESCRIPTION = "trace.json"


class TraceParts:
    """A streamed trace; iterating gives one `GradientTrace` a file, in order, and holds one at a time.

    Raises:
        FileNotFoundError: the directory holds no streamed trace.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not (self.directory / DESCRIPTION).is_file():
            raise FileNotFoundError(
                f"{directory} holds no streamed trace. Give the directory that trace_gradients was given."
            )
        with reading(self.directory / DESCRIPTION):
            self.layers: tuple[int, ...] = tuple(read_json(self.directory / DESCRIPTION)["layers"])

    @classmethod
    def started(cls, directory: str | Path, vector: SteeringVector, positions: Positions) -> "TraceParts":
        """A trace of `vector` in `directory`, new or to be gone on with.

        Raises:
            ValueError: the directory holds the trace of another vector, or at other positions.
        """
        description: dict[str, Any] = {
            "layers": list(vector.layers),
            "positions": positions,
            "directions": vector.fingerprint,
        }
        path = Path(directory) / DESCRIPTION
        goes_on = path.is_file()
        if goes_on and (there := read_json(path)) != description:
            different = ", ".join(name for name in description if there.get(name) != description[name])
            raise ValueError(
                f"{directory} holds a trace of another vector (other: {different}). Choose another directory, or "
                "delete this one."
            )
        write_json(path, description)
        if goes_on:
            remove_partial(directory)
        return cls(directory)

    def __len__(self) -> int:
        """Number of steps on disk."""
        return sum(self._n_steps(path) for path in self._paths)

    def __iter__(self) -> Iterator[GradientTrace]:
        return map(GradientTrace.load, self._paths)

    @property
    def mean_pull(self) -> Float[Tensor, "step layer"]:
        """As `GradientTrace.mean_pull`, with one part in memory at a time."""
        means = [part.mean_pull for part in self]
        return torch.cat(means) if means else torch.zeros(0, len(self.layers))

    def whole(self) -> GradientTrace:
        """All steps in memory, for who reads a finished trace from disk; a recorder's own is `GradientRecorder.trace`."""
        return GradientTrace.joined(self.layers, list(self))

    def append(self, first_step: int, part: GradientTrace) -> None:
        """Write the steps from `first_step` on, atomically."""
        part.save(self._path(first_step))

    def cut(self, step: int) -> None:
        """Forget what was recorded from `step` on, which will be made again.

        Raises:
            ValueError: not all steps before it are there.
        """
        for path in self._paths:
            if path >= self._path(step):
                path.unlink()
        if len(self) != step:
            raise ValueError(
                f"{self.directory} holds {len(self)} steps, but the training goes on at step {step}. Trace a training "
                "from its first start on, or start it anew in another directory."
            )

    @property
    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob("part-*.safetensors"))

    def _path(self, first_step: int) -> Path:
        return self.directory / f"part-{first_step:09d}.safetensors"

    @staticmethod
    def _n_steps(path: Path) -> int:
        with reading(path), safe_open(path, framework="pt") as file:
            return file.get_slice("pull").get_shape()[0]
