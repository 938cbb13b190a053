"""What the argument from prompt to student does; the command line's flags come from here."""

from dataclasses import dataclass, field

from steerlens.experiments.config import DataConfig
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig


@dataclass(frozen=True)
class ArgumentConfig(DataConfig):
    """The paper's argument on one model, from prompt to trained student.

    Args:
        other_model: another initialisation of the same recipe; it replicates the first and plays the student of
            another initialisation.
        student_seeds: seeds of every student group.
        adamw_rates, sgd_rates: the learning-rate curves; `train.learning_rate` is one of the first.
        sgd_clip_norms: SGD runs with each of these; 0 means without clipping.
        loss_tolerance: nats a token within which an SGD run's held-out loss matches AdamW's.
        fit: how the prompt's vector is fitted.
        train: the main student; the others differ from it in what their name says.
    """

    other_model: str = "organism:seed-1"
    student_seeds: tuple[int, ...] = (0, 1, 2)
    adamw_rates: tuple[float, ...] = (3e-3, 1e-2, 2e-2, 3e-2, 6e-2)
    sgd_rates: tuple[float, ...] = (0.3, 1.0, 2.0, 4.0)
    sgd_clip_norms: tuple[float, ...] = (1.0, 0.0)
    loss_tolerance: float = 0.01
    fit: FitConfig = field(default_factory=FitConfig)
    train: TrainConfig = field(default_factory=lambda: ORGANISM_STUDENT)

    @property
    def models(self) -> tuple[str, str]:
        """The two initialisations."""
        return self.model, self.other_model


ARGUMENT_PRESETS: dict[str, ArgumentConfig] = {
    "quick": ArgumentConfig(),
    "full": ArgumentConfig(student_seeds=(0, 1, 2, 3, 4)),
}
