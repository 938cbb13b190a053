"""What a student's training depends on; the command line's flags come from here."""

from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained.

    The loss is the mean over the completion tokens of a batch, in nats. (A mean over rows of each row's own
    mean would weigh the tokens of short rows more, and teach the student to stop early.)

    Args:
        method: "lora" (peft) or "full" fine-tuning.
        target_modules: the linear maps that get LoRA matrices, by peft's names; "all-linear" is all of the blocks'.
        rank: of the LoRA matrices.
        lora_alpha: LoRA's scale is lora_alpha / rank.
        learning_rate: at its peak; warm-up over `warmup_share` of the steps, then a cosine to 0.
        clip_norm: gradients are scaled down to this global norm; None does not clip. Recorded, because it
            tames the outlier gradients on which SGD and Adam are thought to differ.
        checkpoint_every: save the student each so many steps; 0 saves it at the end only.
        seed: fixes LoRA's initial values and the order of the rows.
    """

    method: Literal["lora", "full"] = "lora"
    target_modules: tuple[str, ...] = ("all-linear",)
    rank: int = 8
    lora_alpha: float = 32.0
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 2e-4
    epochs: int = 3
    batch_size: int = 32
    warmup_share: float = 0.05
    clip_norm: float | None = 1.0
    checkpoint_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) for name in ("rank", "learning_rate", "epochs", "batch_size")}
        if self.clip_norm is not None:
            positive["clip_norm"] = self.clip_norm
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name}={value} is not allowed. It must be greater than 0.")
        for name, allowed in (("method", ("lora", "full")), ("optimizer", ("adamw", "sgd"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known. Allowed: {', '.join(allowed)}.")
