"""What experiments share in which several teachers write equally many rows."""

from dataclasses import dataclass, field

from steerlens.experiments.config import DataConfig
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig

QUICK_FIT = FitConfig(n_train=256, n_validation=64, n_heldout=128, steps=80)
"""A vector within a few hundredths of kl_explained of the full one, in some 20 seconds."""


@dataclass(frozen=True)
class TaughtConfig(DataConfig):
    """Teachers, and their students.

    Args:
        n_rows: filtered rows of every teacher; one that has written fewer after `n_prompts` tasks has no students.
        student_seeds: seeds of the students of every teacher.
        fit: how prompts' vectors are fitted.
        train: every student.
    """

    n_heldout: int = 128
    n_rows: int = 1500
    n_prompts: int = 9000
    student_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    fit: FitConfig = field(default_factory=lambda: FitConfig(n_train=1024, n_heldout=384, steps=200))
    train: TrainConfig = field(default_factory=lambda: ORGANISM_STUDENT)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_prompts", "n_heldout", "n_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed. It must be 1 or greater.")
        if not self.student_seeds:
            raise ValueError("student_seeds is empty. Give at least one.")
