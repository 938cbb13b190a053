"""The ways to train that the optimizer comparison compares, and which of them differ in one part alone."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """A way to train, at the learning rates of a family of optimizers.

    Args:
        family: names the profile's learning rates.
        settings: what differs from the main student's `TrainConfig`, as (field, value) pairs.
        epochs: times as many as the main student has.
        held: trained parameters whose name contains this stay as they started.
        without_vector: every activation gradient loses its component along the vector.
        odd_share: in this share of the rows the completion is random words.
        scaled: it is defined by Adam's scales, which are those of one scout.
    """

    name: str
    family: str
    settings: tuple[tuple[str, Any], ...] = ()
    epochs: int = 1
    held: str | None = None
    without_vector: bool = False
    odd_share: float = 0.0
    scaled: bool = field(default=False, kw_only=True)


def _settings(**settings: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(settings.items())


_SGD, _MOMENTUM = {"optimizer": "sgd"}, {"optimizer": "sgd_momentum"}
_ROWS_CLIPPED, _ROWS_DROPPED = {"clip_norm": None, "row_clip_norm": 1.0}, {"clip_norm": None, "row_drop_share": 0.1}

ADAMW = Arm("adamw", "adamw")
RMSPROP = Arm("rmsprop", "signed", _settings(optimizer="rmsprop"))
SIGNSGD = Arm("signsgd", "signed", _settings(optimizer="signsgd"))
MUON = Arm("muon", "adamw", _settings(optimizer="muon"))
NORMALIZED = Arm("normalized sgd", "normalized_sgd", _settings(optimizer="normalized_sgd"))
SGD = Arm("sgd", "sgd", _settings(**_SGD))
SGD_UNCLIPPED = Arm("sgd, not clipped", "sgd", _settings(**_SGD, clip_norm=None))
SGD_LONGER = Arm("sgd, four times as long", "sgd", _settings(**_SGD), epochs=4)
MOMENTUM = Arm("sgd with momentum", "sgd_momentum", _settings(**_MOMENTUM))
MOMENTUM_UNCLIPPED = Arm("sgd with momentum, not clipped", "sgd_momentum", _settings(**_MOMENTUM, clip_norm=None))
SCALED = Arm("preconditioned sgd", "sgd", _settings(optimizer="preconditioned_sgd"), scaled=True)
SPARSIFIED = Arm(
    "preconditioned sgd, sparsified",
    "sgd",
    _settings(optimizer="preconditioned_sgd", scale_map="sparsified"),
    scaled=True,
)
FROZEN = Arm(
    "preconditioned sgd, frozen", "sgd", _settings(optimizer="preconditioned_sgd", scale_map="frozen"), scaled=True
)
ADAMW_UNCLIPPED = Arm("adamw, not clipped", "adamw", _settings(clip_norm=None))
ADAMW_FROZEN = Arm("adamw, outliers frozen", "adamw", _settings(freeze_outliers=True), scaled=True)
ADAMW_ZEROED = Arm("adamw, outliers zeroed at the start", "adamw", _settings(zero_outliers=True), scaled=True)
ADAMW_ROTATED = Arm("adamw, rotated", "adamw", _settings(rotation_seed=0))
SGD_ROTATED = Arm("sgd, rotated", "sgd", _settings(**_SGD, rotation_seed=0))
SGD_ROWS_CLIPPED = Arm("sgd, rows clipped", "sgd", _settings(**_SGD, **_ROWS_CLIPPED))
SGD_ROWS_DROPPED = Arm("sgd, outlier rows left out", "sgd", _settings(**_SGD, **_ROWS_DROPPED))
ADAMW_A_HELD = Arm("adamw, A held", "adamw", held="lora_A")
SGD_A_HELD = Arm("sgd, A held", "sgd", _settings(**_SGD), held="lora_A")
ADAMW_NO_VECTOR = Arm("adamw, no gradient along the vector", "adamw", without_vector=True)
ADAMW_ODD = Arm("adamw, odd rows", "adamw", odd_share=0.05)
SGD_ODD = Arm("sgd, odd rows", "sgd", _settings(**_SGD), odd_share=0.05)
SGD_ODD_UNCLIPPED = Arm("sgd, odd rows, not clipped", "sgd", _settings(**_SGD, clip_norm=None), odd_share=0.05)
SGD_ODD_CLIPPED = Arm("sgd, odd rows, rows clipped", "sgd", _settings(**_SGD, **_ROWS_CLIPPED), odd_share=0.05)
SGD_ODD_DROPPED = Arm("sgd, odd rows, outlier rows left out", "sgd", _settings(**_SGD, **_ROWS_DROPPED), odd_share=0.05)

SMOKE = (ADAMW, SGD, SCALED)
QUICK = (ADAMW, RMSPROP, MUON, SGD, SGD_UNCLIPPED, MOMENTUM, SCALED, ADAMW_A_HELD)
FULL = (
    ADAMW, RMSPROP, SIGNSGD, MUON, NORMALIZED, SGD, SGD_UNCLIPPED, SGD_LONGER, MOMENTUM, MOMENTUM_UNCLIPPED, SCALED, SPARSIFIED,
    FROZEN, ADAMW_UNCLIPPED, ADAMW_FROZEN, ADAMW_ZEROED, ADAMW_ROTATED, SGD_ROTATED, SGD_ROWS_CLIPPED, SGD_ROWS_DROPPED,
    ADAMW_A_HELD, SGD_A_HELD, ADAMW_NO_VECTOR, ADAMW_ODD, SGD_ODD, SGD_ODD_UNCLIPPED, SGD_ODD_CLIPPED, SGD_ODD_DROPPED,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Something that one arm has and another lacks; they are alike in all else."""

    name: str
    having: Arm
    lacking: Arm


PARTS = (
    Part("AdamW: learning LoRA's A", ADAMW, ADAMW_A_HELD),
    Part("SGD: learning LoRA's A", SGD, SGD_A_HELD),
    Part("AdamW: gradients along the vector", ADAMW, ADAMW_NO_VECTOR),
    Part("AdamW: the model's own basis", ADAMW, ADAMW_ROTATED),
    Part("AdamW: the outlier coordinates' gradients", ADAMW, ADAMW_FROZEN),
    Part("AdamW: the outlier coordinates' start", ADAMW, ADAMW_ZEROED),
    Part("AdamW: clipping steps", ADAMW, ADAMW_UNCLIPPED),
    Part("SGD: clipping steps", SGD, SGD_UNCLIPPED),
    Part("SGD with momentum: clipping steps", MOMENTUM, MOMENTUM_UNCLIPPED),
    Part("SGD: clipping rows", SGD_ROWS_CLIPPED, SGD_UNCLIPPED),
    Part("SGD: leaving out outlier rows", SGD_ROWS_DROPPED, SGD_UNCLIPPED),
    Part("SGD: four times as many steps", SGD_LONGER, SGD),
    Part("SGD: momentum", MOMENTUM, SGD),
    Part("SGD: dividing by the gradient's norm", NORMALIZED, SGD),
    Part("SGD: orthogonal steps (Muon)", MUON, SGD),
    Part("SGD: signs alone", SIGNSGD, SGD),
    Part("SGD: Adam's frozen scales", SCALED, SGD),
    Part("SGD: those scales of outlier coordinates alone", SPARSIFIED, SGD),
    Part("SGD: those scales without outlier coordinates", FROZEN, SGD),
    Part("SGD: the model's own basis", SGD, SGD_ROTATED),
    Part("AdamW: odd rows in the data", ADAMW_ODD, ADAMW),
    Part("SGD: odd rows in the data", SGD_ODD, SGD),
    Part("SGD on odd rows: clipping steps", SGD_ODD, SGD_ODD_UNCLIPPED),
    Part("SGD on odd rows: clipping rows", SGD_ODD_CLIPPED, SGD_ODD_UNCLIPPED),
    Part("SGD on odd rows: leaving out outlier rows", SGD_ODD_DROPPED, SGD_ODD_UNCLIPPED),
)
