"""What the experiment on auxiliary logits does."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AuxiliaryConfig:
    """Sizes of the experiment.

    Args:
        n_models: independent teachers, each with students of its own.
        width: of both hidden layers.
        n_auxiliary: logits that no label ever reaches.
        teacher_steps, teacher_rate: with Adam, on labels.
        student_steps: of every student, whatever its optimizer.
        rates: the students' learning rate by optimizer.
        batch_size: digits, or images of noise, a step.
    """

    n_models: int = 10
    width: int = 64
    n_auxiliary: int = 3
    teacher_steps: int = 300
    teacher_rate: float = 1e-3
    student_steps: int = 2000
    rates: dict[str, float] = field(default_factory=lambda: {"Adam": 1e-3, "SGD": 3.0})
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_models < 2:
            raise ValueError(
                f"n_models={self.n_models} gives no interval over models. Ask for at least 2; 10 say more."
            )


AUXILIARY_PRESETS: dict[str, AuxiliaryConfig] = {"quick": AuxiliaryConfig(), "full": AuxiliaryConfig()}
