"""Several processes that train one student: each takes a part of every batch, and gradients are summed.

Start a script with `torchrun` or `accelerate launch`; `train_student` notices. Every process holds the whole model and
optimizer, and makes the same step.
"""

import os
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process, `index` of `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls, device: torch.device) -> "Processes":
        """All processes that the launcher started, connected (gloo on CPUs); alone without a launcher.

        Raises:
            RuntimeError: the launcher started several processes that cannot be connected for `device`.
        """
        wanted = int(os.environ.get("WORLD_SIZE", "1"))
        if wanted == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu")
        if state.num_processes != wanted:
            raise RuntimeError(
                f"The launcher started {wanted} processes, but for the student on {device} accelerate connects "
                f"{state.num_processes}. Load the model on each process's own device, and create PartialState, if at "
                "all, with cpu=True for students on CPUs."
            )
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.index == 0

    def part(self, n_rows: int) -> slice:
        """This process's rows: parts follow one another in the processes' order, and differ by one row at most."""
        sizes = self._sizes(n_rows)
        start = sum(sizes[: self.index])
        return slice(start, start + sizes[self.index])

    def add(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over processes."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def gather(self, rows: Float[Tensor, "own ..."], n_rows: int) -> Float[Tensor, "row ..."]:
        """The rows of all processes, in the order that they had before they were parted."""
        if self.count == 1:
            return rows
        sizes = self._sizes(n_rows)
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def _sizes(self, n_rows: int) -> list[int]:
        return [n_rows // self.count + (index < n_rows % self.count) for index in range(self.count)]
