"""What the optimizer comparison does; the command line's flags come from here."""

from dataclasses import dataclass, field, replace
from typing import Any

from steerlens.experiments.config import DataConfig
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.students.config import TrainConfig


@dataclass(frozen=True)
class Arm:
    """A way to train, and the learning rates at which it is tried.

    Args:
        rates: its useful range; the search goes beyond it where the loss is not matched there.
        changes: what differs from the main student's `TrainConfig`; needed scales are those of the run's one scout.
        held: trained parameters whose name contains this stay as they started.
        without_vector: every activation gradient loses its component along the vector.
        odd_share: in this share of the rows the completion is random words.
    """

    rates: tuple[float, ...]
    changes: dict[str, Any] = field(default_factory=dict)
    held: str | None = None
    without_vector: bool = False
    odd_share: float = 0.0


REFERENCE = "adamw"
"""The arm whose held-out loss all others have to match."""

_ADAPTIVE, _SIGNED = (3e-3, 1e-2, 3e-2, 6e-2), (1e-3, 3e-3, 1e-2, 3e-2)
_PLAIN, _MOMENTUM = (0.3, 1.0, 2.0, 4.0), (0.03, 0.1, 0.3, 0.5)
_NOT_CLIPPED: dict[str, Any] = {"clip_norm": None}
_ROWS_CLIPPED: dict[str, Any] = {"clip_norm": None, "row_clip_norm": 1.0}
_ROWS_DROPPED: dict[str, Any] = {"clip_norm": None, "row_drop_share": 0.1}

ARMS: dict[str, Arm] = {
    REFERENCE: Arm(_ADAPTIVE),
    "rmsprop": Arm(_SIGNED, {"optimizer": "rmsprop"}),
    "signsgd": Arm(_SIGNED, {"optimizer": "signsgd"}),
    "muon": Arm(_ADAPTIVE, {"optimizer": "muon"}),
    "normalized sgd": Arm((1e-2, 3e-2, 1e-1, 3e-1), {"optimizer": "normalized_sgd"}),
    "sgd": Arm(_PLAIN, {"optimizer": "sgd"}),
    "sgd, not clipped": Arm(_PLAIN, {"optimizer": "sgd", **_NOT_CLIPPED}),
    "sgd, four times as long": Arm(_PLAIN[:3], {"optimizer": "sgd", "epochs": 4 * ORGANISM_STUDENT.epochs}),
    "sgd with momentum": Arm(_MOMENTUM, {"optimizer": "sgd_momentum"}),
    "sgd with momentum, not clipped": Arm(_MOMENTUM[:3], {"optimizer": "sgd_momentum", **_NOT_CLIPPED}),
    "preconditioned sgd": Arm(_PLAIN, {"optimizer": "preconditioned_sgd"}),
    "preconditioned sgd, sparsified": Arm(_PLAIN[:3], {"optimizer": "preconditioned_sgd", "scale_map": "sparsified"}),
    "preconditioned sgd, frozen": Arm(_PLAIN[:3], {"optimizer": "preconditioned_sgd", "scale_map": "frozen"}),
    "adamw, not clipped": Arm(_ADAPTIVE[:3], _NOT_CLIPPED),
    "adamw, outliers frozen": Arm(_ADAPTIVE[:3], {"freeze_outliers": True}),
    "adamw, outliers zeroed at the start": Arm(_ADAPTIVE[:3], {"zero_outliers": True}),
    "adamw, rotated": Arm(_ADAPTIVE[:3], {"rotation_seed": 0}),
    "sgd, rotated": Arm(_PLAIN[:3], {"optimizer": "sgd", "rotation_seed": 0}),
    "sgd, rows clipped": Arm(_PLAIN[:3], {"optimizer": "sgd", **_ROWS_CLIPPED}),
    "sgd, outlier rows left out": Arm(_PLAIN[:3], {"optimizer": "sgd", **_ROWS_DROPPED}),
    "adamw, A held": Arm(_ADAPTIVE[1:], held="lora_A"),
    "sgd, A held": Arm(_PLAIN[1:], {"optimizer": "sgd"}, held="lora_A"),
    "adamw, no gradient along the vector": Arm(_ADAPTIVE[:3], without_vector=True),
    "adamw, odd rows": Arm(_ADAPTIVE[:3], odd_share=0.05),
    "sgd, odd rows": Arm(_PLAIN[:3], {"optimizer": "sgd"}, odd_share=0.05),
    "sgd, odd rows, not clipped": Arm(_PLAIN[:3], {"optimizer": "sgd", **_NOT_CLIPPED}, odd_share=0.05),
    "sgd, odd rows, rows clipped": Arm(_PLAIN[:3], {"optimizer": "sgd", **_ROWS_CLIPPED}, odd_share=0.05),
    "sgd, odd rows, outlier rows left out": Arm(_PLAIN[:3], {"optimizer": "sgd", **_ROWS_DROPPED}, odd_share=0.05),
}
_QUICK = {
    REFERENCE: (3e-3, 1e-2, 3e-2),
    "rmsprop": (3e-3, 1e-2, 3e-2),
    "muon": (3e-3, 1e-2, 3e-2),
    "sgd": (0.3, 1.0, 2.0),
    "sgd, not clipped": (0.3, 1.0, 2.0),
    "sgd with momentum": (0.1, 0.3, 0.5),
    "preconditioned sgd": (0.3, 1.0, 2.0),
    "adamw, A held": (1e-2, 3e-2, 6e-2),
}


@dataclass(frozen=True)
class OptimizersConfig(DataConfig):
    """Students of one data set that differ in the optimizer alone, compared at the same held-out loss.

    Args:
        seeds: at the matched rates, and of AdamW's reference loss.
        curve_seeds: how many of these trace the curves over the learning rate.
        arms: the ways to train, by name; the one called "adamw" is the reference.
        loss_tolerance: nats a token within which a held-out loss matches the reference's.
        budget: learning rates that the search may add to an arm's grid.
        pooled_sizes: numbers of rows over which gradients are averaged.
        train: the main student; its learning rate is the reference's.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    curve_seeds: int = 1
    arms: dict[str, Arm] = field(default_factory=lambda: ARMS)
    loss_tolerance: float = 0.005
    budget: int = 4
    pooled_sizes: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    train: TrainConfig = field(default_factory=lambda: ORGANISM_STUDENT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if REFERENCE not in self.arms:
            raise ValueError(f"arms={sorted(self.arms)} has no {REFERENCE!r}, whose loss the others have to match.")
        if not 1 <= self.curve_seeds <= len(self.seeds):
            raise ValueError(f"curve_seeds={self.curve_seeds} is not in 1..{len(self.seeds)}, the number of seeds.")


OPTIMIZER_PRESETS: dict[str, OptimizersConfig] = {
    "quick": OptimizersConfig(
        seeds=(0, 1, 2),
        arms={name: replace(ARMS[name], rates=rates) for name, rates in _QUICK.items()},
        budget=2,
    ),
    "full": OptimizersConfig(),
}
