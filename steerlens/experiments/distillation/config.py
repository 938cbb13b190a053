"""What the experiment on distillation does; the command line's flags come from here."""

from dataclasses import dataclass, field, replace

from steerlens.experiments.taught_config import QUICK_FIT, TaughtConfig
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.students.config import TrainConfig


@dataclass(frozen=True)
class DistillationConfig(TaughtConfig):
    """Do students distil any vector that steers their teacher, and is it behaviour only where it means something?

    Students train for 10 epochs, as the paper's do in this experiment.

    Args:
        other_traits: whose prompts' vectors are semantic ones, beside that of `trait`; of the same kind.
        n_random: Gaussian vectors.
        tokens: whose rows of the unembedding are vectors; these and the random ones have the norm of the
            trait's, or a half, a quarter, ... of it where the steered model would write no lists.
        layer: where vectors act.
        strengths: of the trait's vector, beside 1.
    """

    other_traits: tuple[str, ...] = ("wolf", "panda")
    n_random: int = 3
    tokens: tuple[str, ...] = ("owl", "water")
    layer: int = 0
    strengths: tuple[float, ...] = (0.5, 0.75)
    train: TrainConfig = field(default_factory=lambda: replace(ORGANISM_STUDENT, epochs=10))


DISTILLATION_PRESETS: dict[str, DistillationConfig] = {
    "quick": DistillationConfig(
        n_heldout=64,
        other_traits=("wolf",),
        n_random=2,
        tokens=("water",),
        n_rows=960,
        n_prompts=6000,
        student_seeds=(0, 1),
        fit=QUICK_FIT,
    ),
    "full": DistillationConfig(),
}
