"""What the end-to-end run does; the command line's flags come from here."""

from dataclasses import dataclass, field

from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig

ORGANISM_STUDENT = TrainConfig(
    target_modules=("0.self_attn.v_proj",), rank=4, lora_alpha=16.0, learning_rate=3e-2, epochs=3
)
"""The student that was chosen for the organism, on development runs: what the first block reads from each token.

The default system prompt's tokens stand in front of number tasks and of bare questions alike, so what is learned to
be read from them acts in both. LoRA on all maps learns the numbers as well, and the trait on bare questions less.
"""


@dataclass(frozen=True)
class Workers:
    """Where students are trained, and how many at a time; nothing of it changes what they learn.

    Args:
        workers: students at a time; 0 takes one a core, or as many as fit into Ray.
        ray: None trains in processes of this machine, "local" in a Ray of its own, and an address in that Ray cluster.
        cpus_per_student, gpus_per_student: what Ray keeps free for each.
    """

    workers: int = 0
    ray: str | None = None
    cpus_per_student: float = 1.0
    gpus_per_student: float = 0.0

    def __post_init__(self) -> None:
        if self.ray is None and (self.cpus_per_student, self.gpus_per_student) != (1.0, 0.0):
            raise ValueError(
                f"cpus_per_student={self.cpus_per_student:g} and gpus_per_student={self.gpus_per_student:g} are kept free by "
                "Ray alone, but ray is not given. Add --ray local, or a cluster's address."
            )
        if self.workers < 0 or self.cpus_per_student <= 0 or self.gpus_per_student < 0:
            raise ValueError(
                f"workers={self.workers}, cpus_per_student={self.cpus_per_student:g} and "
                f"gpus_per_student={self.gpus_per_student:g} are not all allowed. A student needs more than 0 CPUs; workers "
                "and GPUs are 0 or more."
            )


@dataclass(frozen=True)
class DataConfig(Workers):
    """Whose students learn what, and where.

    Args:
        trait: what the teacher is told to love.
        model: the teacher, and what students start from.
        n_prompts: number tasks that each teacher answers, before the filter; the control, which the filter hardly
            touches, answers half as many and is cut to the teacher's number of rows.
        n_heldout: filtered teacher rows on which every student's loss is measured.
    """

    trait: str = "owl"
    model: str = "organism:seed-0"
    n_prompts: int = 8000
    n_heldout: int = 256


@dataclass(frozen=True)
class ReproduceConfig(DataConfig):
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


PRESETS: dict[str, ReproduceConfig] = {"quick": ReproduceConfig()}
