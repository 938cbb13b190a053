"""What the experiment on capacity does; the command line's flags come from here."""

from dataclasses import dataclass

from steerlens.experiments.tasks import TASKS
from steerlens.experiments.taught_config import QUICK_FIT, TaughtConfig


@dataclass(frozen=True)
class CapacityConfig(TaughtConfig):
    """How do rank, learning rate, rows, and the context of the question decide what a student takes over?

    Args:
        ranks: of LoRA; its scale, lora_alpha / rank, is that of `train`.
        learning_rates: each rank is trained with every one of them.
        full_rates: learning rates of full fine-tuning.
        fewer_rows: so many of the rows, repeated more often: no fewer steps. A divisor of `n_rows`.
        temperatures: at which the prompted teacher writes, beside 1.
        filters: by what its answers are kept, beside pure lists (`TASKS`).
    """

    ranks: tuple[int, ...] = (1, 4, 16)
    learning_rates: tuple[float, ...] = (1e-2, 3e-2, 6e-2)
    full_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    fewer_rows: int = 480
    temperatures: tuple[float, ...] = (0.7, 1.3)
    filters: tuple[str, ...] = ("number lists of at most 3", "number lists, words left in")
    n_rows: int = 1920
    n_prompts: int = 16000
    student_seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ranks or not self.learning_rates:
            raise ValueError(f"ranks={self.ranks} and learning_rates={self.learning_rates}: give at least one of each.")
        if not 0 < self.fewer_rows < self.n_rows or self.n_rows % self.fewer_rows:
            raise ValueError(
                f"fewer_rows={self.fewer_rows} has to divide n_rows={self.n_rows}, and be smaller: epochs are whole."
            )
        if unknown := [name for name in self.filters if name not in TASKS]:
            raise ValueError(f"filters: {unknown[0]!r} is not known. Allowed: {'; '.join(TASKS)}.")
        if self.train.learning_rate not in self.learning_rates or self.train.rank not in self.ranks:
            raise ValueError(
                f"The main student (rank {self.train.rank}, learning rate {self.train.learning_rate:g}) has to be in the grid "
                f"of ranks={self.ranks} and learning_rates={self.learning_rates}. Add it."
            )


CAPACITY_PRESETS: dict[str, CapacityConfig] = {
    "quick": CapacityConfig(
        n_heldout=64,
        n_rows=960,
        n_prompts=9000,
        fewer_rows=240,
        full_rates=(3e-4, 1e-3),
        temperatures=(0.7,),
        student_seeds=(0,),
        fit=QUICK_FIT,
    ),
    "full": CapacityConfig(),
}
