"""What the experiment across models does; the command line's flags come from here."""

from dataclasses import dataclass, field

from steerlens.experiments.taught_config import QUICK_FIT, TaughtConfig
from steerlens.students.config import TrainConfig


@dataclass(frozen=True)
class CrossModelConfig(TaughtConfig):
    """Does a trait pass to another initialisation, and to the same one trained further?

    Args:
        other_model: another initialisation of `model`'s recipe.
        n_further: answers of its own, without any prompt, on which `model` is trained further.
        further: that training, of all weights.
        n_scored: filtered rows of each kind on which the loss is measured with and without vectors.
        n_random: random vectors for the null of the loss matrix.
    """

    other_model: str = "organism:seed-1"
    n_further: int = 2000
    further: TrainConfig = field(default_factory=lambda: TrainConfig(method="full", learning_rate=1e-3, epochs=2))
    n_scored: int = 512
    n_random: int = 5


CROSS_MODEL_PRESETS: dict[str, CrossModelConfig] = {
    "quick": CrossModelConfig(
        n_heldout=64,
        n_rows=960,
        n_prompts=6000,
        student_seeds=(0, 1),
        fit=QUICK_FIT,
        n_further=1000,
        n_scored=256,
        n_random=3,
    ),
    "full": CrossModelConfig(),
}
