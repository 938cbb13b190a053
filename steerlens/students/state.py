"""A training's state at one moment, from which a killed training goes on bit for bit."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from steerlens.files import load_tensors, reading, save_tensors
from steerlens.students.config import TrainConfig
from steerlens.students.optimizers import Parameters

KIND = "trainer-state"
STATE_FILE = "state.safetensors"


def describe_run(config: TrainConfig, model: str, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
    """What must be the same for a training to go on: settings, model name, rows, the scales' content.

    The size of micro batches may change, as it has to where memory is short: only rounding depends on it.
    """
    settings = asdict(config)
    del settings["micro_batch_size"]
    description = {"config": settings, "model": model, "rows": hashlib.sha256(repr(rows).encode()).hexdigest()}
    if config.scales is not None:
        description["scales"] = hashlib.sha256(Path(config.scales).read_bytes()).hexdigest()
    return description


@dataclass
class TrainerState:
    """Everything that the rest of a training depends on, and nothing else.

    The order of the rows follows from the seed and the step. Weights are those that are trained, as they are stored
    (rotated, for a rotated student); torch's random state is there for models with dropout.

    Args:
        run: from `describe_run`.
        losses: one for every step that was made.
    """

    run: dict[str, Any]
    parameters: Parameters
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    losses: list[float]

    @property
    def step(self) -> int:
        """How many steps were made."""
        return len(self.losses)

    def update(self, loss: float) -> None:
        """One step of the optimizer along the gradients that are there, and of the schedule."""
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.losses.append(loss)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with JSON in its metadata, atomically; no pickle."""
        tensors: dict[str, Tensor] = {f"parameter.{name}": value for name, value in self.parameters.items()}
        plain: dict[str, dict[str, Any]] = {}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
                else:
                    plain.setdefault(str(index), {})[key] = value
        tensors |= {"losses": torch.tensor(self.losses, dtype=torch.float64), **_random_state(self._device)}
        facts = {
            "run": self.run,
            "optimizer": plain,
            "schedule": {"last_epoch": self.schedule.last_epoch, "rates": self.schedule.get_last_lr()},
        }
        save_tensors(path, tensors, kind=KIND, facts=facts)

    def restore(self, path: str | Path) -> None:
        """Go back to what `save` wrote.

        Raises:
            ValueError: the file belongs to another run (says what differs), or is damaged.
        """
        tensors, facts = load_tensors(path, kind=KIND)
        with reading(path):
            self._check_run(path, facts["run"])
            self._take(tensors, facts)

    def _take(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        for name, value in self.parameters.items():
            if (saved := tensors[f"parameter.{name}"]).shape != value.shape:
                raise TypeError(f"{name} has shape {tuple(saved.shape)}, not {tuple(value.shape)}")
            value.data.copy_(saved)
        entries: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in facts["optimizer"].items()}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                entries.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.schedule.last_epoch = facts["schedule"]["last_epoch"]
        self.schedule._last_lr = facts["schedule"]["rates"]
        for group, rate in zip(self.optimizer.param_groups, facts["schedule"]["rates"], strict=True):
            group["lr"] = rate
        self.losses[:] = tensors["losses"].tolist()
        _set_random_state(tensors, self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def _check_run(self, path: str | Path, saved: dict[str, Any]) -> None:
        ours, theirs = _flat(self.run), _flat(saved)
        different = [
            f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here"
            for name in {**theirs, **ours}
            if ours.get(name) != theirs.get(name)
        ]
        if different:
            raise ValueError(
                f"{path} holds the state of another training ({'; '.join(different)}). To go on with that one, give "
                "the same model, samples and settings; to start this one, choose another directory or delete the file."
            )


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    flat = {**run, **run["config"]}
    del flat["config"]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def _random_state(device: torch.device) -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
