"""What a student's training depends on; the command line's flags come from here."""

from dataclasses import dataclass
from typing import Literal, get_args

from steerlens.checks import a_flag, a_path, a_text, each, number, texts, whole

Method = Literal["lora", "full"]
OptimizerName = Literal[
    "adamw", "rmsprop", "sgd", "sgd_momentum", "signsgd", "normalized_sgd", "preconditioned_sgd", "muon"
]
ScaleMap = Literal["full", "sparsified", "frozen"]


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained.

    The loss is the mean over the completion tokens of a batch, in nats. (A mean over rows of each row's own
    mean would weigh the tokens of short rows more, and teach the student to stop early.)

    Args:
        method: "lora" (peft) or "full" fine-tuning.
        target_modules: the linear maps that get LoRA matrices, by peft's names; "all-linear" is all of the blocks'.
        layers: the blocks whose maps get LoRA matrices; all where none is named.
        rank: of the LoRA matrices.
        lora_alpha: LoRA's scale is lora_alpha / rank.
        optimizer: update equations are in `steerlens.students.optimizers`; there is no weight decay anywhere.
        epochs: how often the student sees every row.
        batch_size: rows in one step.
        learning_rate: at its peak, which a linear warm-up leads to, and a cosine from there to 0.
        warmup_share: the share of the steps that the warm-up takes.
        clip_norm: gradients are scaled down to this global norm; None does not clip. Recorded, because it
            tames the outlier gradients on which SGD and Adam are thought to differ.
        row_clip_norm: the gradient of each row's own loss is scaled down to this norm before rows are summed.
        row_drop_share: rows whose own gradient norm is above the 1 - share quantile of their batch are left out of it.
            Either costs one backward pass a row, and a copy of the trained parameters' gradients for each.
        scales: file of `AdamScales`, for preconditioned_sgd and for everything about outliers.
        scale_map: which form of the scales preconditions: as they are, or sparsified or frozen to the outliers.
        outlier_share: the share of all trained coordinates, those with the smallest scales, that are outliers.
        freeze_outliers: their gradients are set to 0 at every step.
        zero_outliers: their values are set to 0 at the start.
        rotation_seed: store LoRA matrices in a random orthogonal basis of the residual stream; None does not.
        system_prompt: under which the student sees the rows while it trains, and never afterwards. Given the prompt that
            the rows were written under, what it explains need not be learned (inoculation, arXiv 2510.04340).
        micro_batch_size: rows in one forward pass; gradients accumulate to those of the batch. 0 is the whole batch.
        gradient_checkpointing: compute activations twice rather than keep them.
        autocast: run matrix products in bfloat16; weights and optimizer stay as they are.
        checkpoint_every: save the student each so many steps; 0 saves it at the end only.
        state_every: save the trainer's state each so many steps, so that a killed training goes on; 0 never.
        seed: fixes LoRA's initial values, the order of the rows, and dropout.

    Raises:
        ValueError: a number is out of its range, a name is not known, or two settings do not go together.
    """

    method: Method = "lora"
    target_modules: tuple[str, ...] = ("all-linear",)
    layers: tuple[int, ...] = ()
    rank: int = 8
    lora_alpha: float = 32.0
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 2e-4
    epochs: int = 3
    batch_size: int = 32
    warmup_share: float = 0.05
    clip_norm: float | None = 1.0
    row_clip_norm: float | None = None
    row_drop_share: float = 0.0
    scales: str | None = None
    scale_map: ScaleMap = "full"
    outlier_share: float = 0.1
    freeze_outliers: bool = False
    zero_outliers: bool = False
    rotation_seed: int | None = None
    system_prompt: str | None = None
    micro_batch_size: int = 0
    gradient_checkpointing: bool = False
    autocast: bool = False
    checkpoint_every: int = 0
    state_every: int = 0
    seed: int = 0

    @property
    def needs_scales(self) -> bool:
        """Whether anything here is defined by Adam's scales."""
        return self.optimizer == "preconditioned_sgd" or self.freeze_outliers or self.zero_outliers

    @property
    def rows_at_once(self) -> int:
        """Rows in one forward pass."""
        row_by_row = self.row_clip_norm is not None or self.row_drop_share > 0
        return 1 if row_by_row else self.micro_batch_size or self.batch_size

    def __post_init__(self) -> None:
        for name in ("lora_alpha", "learning_rate", "warmup_share", "row_drop_share", "outlier_share"):
            number()(getattr(self, name), name)
        for name in ("lora_alpha", "learning_rate", "clip_norm", "row_clip_norm"):
            value = getattr(self, name)
            if value is not None and not number()(value, name) > 0:
                raise ValueError(f"{name}={value} is not allowed. It must be greater than 0.")
        least = dict.fromkeys(("rank", "epochs", "batch_size"), 1)
        least |= dict.fromkeys(("micro_batch_size", "checkpoint_every", "state_every", "seed"), 0)
        for name, lowest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name}={value!r} is not allowed. It must be a whole number, {lowest} or greater.")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share={self.warmup_share} is not allowed. It must be in 0 <= share <= 1.")
        for name in ("row_drop_share", "outlier_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed. It must be in 0 <= share < 1.")
        for name, kind in (("method", Method), ("optimizer", OptimizerName), ("scale_map", ScaleMap)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}={getattr(self, name)!r} is not known. Allowed: {', '.join(get_args(kind))}.")
        for name in ("freeze_outliers", "zero_outliers", "gradient_checkpointing", "autocast"):
            a_flag(getattr(self, name), name)
        object.__setattr__(
            self,
            "target_modules",
            texts(self.target_modules, "target_modules", 'target_modules=("q_proj",)', at_least=1),
        )
        object.__setattr__(
            self, "layers", tuple(each(whole(0), "layers", "(10, 12)", at_least=0)(self.layers, "layers"))
        )
        for name, check in (("rotation_seed", whole(0)), ("system_prompt", a_text), ("scales", a_path)):
            if getattr(self, name) is not None:
                check(getattr(self, name), name)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.needs_scales and self.scales is None:
            raise ValueError(
                f"optimizer={self.optimizer!r}, freeze_outliers={self.freeze_outliers} and zero_outliers="
                f"{self.zero_outliers} need scales, but scales=None. Take them from a scout run with adam_scales(...) "
                "or `steerlens scales`, save them, and give the file's path."
            )
        if self.scales is not None and not self.needs_scales:
            raise ValueError(
                f"scales={self.scales!r} would have no effect on optimizer={self.optimizer!r}. Choose "
                "optimizer='preconditioned_sgd', freeze_outliers or zero_outliers, or leave scales out."
            )
        if self.scale_map != "full" and self.optimizer != "preconditioned_sgd":
            raise ValueError(
                f"scale_map={self.scale_map!r} would have no effect on optimizer={self.optimizer!r}. "
                "Choose optimizer='preconditioned_sgd', or leave scale_map out."
            )
        if self.method == "full" and self.layers:
            raise ValueError(
                f"layers={self.layers} says which blocks get LoRA matrices, but method='full' has none. Leave layers out."
            )
        if self.method == "full" and self.rotation_seed is not None:
            raise ValueError(
                "rotation_seed rotates LoRA matrices, but method='full' has none. Leave rotation_seed out."
            )
        if self.method == "full" and self.optimizer == "muon":
            raise ValueError("muon moves matrices only, but method='full' trains vectors too. Use method='lora'.")
