"""What the experiment on cause does; the command line's flags come from here."""

from dataclasses import dataclass, field

from steerlens.experiments.config import ORGANISM_STUDENT, DataConfig
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig


@dataclass(frozen=True)
class CausalConfig(DataConfig):
    """Is the vector the cause of the transfer, in the teacher and in the student?

    Args:
        n_rows: filtered rows of every teacher; one that has written fewer after `n_prompts` tasks has no students.
        vectors: what v_teacher may be (`teacher_vectors.WAYS`); a random one has the norms of the last.
        student_seeds: seeds of the students of every teacher.
        fit: how the prompt's vectors are fitted.
        train: every student.
        workers: teachers or students at a time, one thread each; 0 takes one a core.
    """

    n_heldout: int = 128
    n_rows: int = 1500
    n_prompts: int = 9000
    vectors: tuple[str, ...] = (
        "mean difference, one layer",
        "mean difference, all layers",
        "fitted, one layer",
        "fitted, all layers",
        "fitted, tasks and questions",
    )
    student_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    fit: FitConfig = field(default_factory=lambda: FitConfig(n_train=1024, n_heldout=384, steps=200))
    train: TrainConfig = field(default_factory=lambda: ORGANISM_STUDENT)
    workers: int = 0


CAUSAL_PRESETS: dict[str, CausalConfig] = {
    "quick": CausalConfig(
        n_heldout=64,
        n_rows=960,
        n_prompts=6000,
        vectors=("mean difference, all layers", "fitted, all layers", "fitted, tasks and questions"),
        student_seeds=(0, 1),
        fit=FitConfig(n_train=384, n_validation=64, n_heldout=192, steps=90),
    ),
    "full": CausalConfig(),
}
