"""What all experiments share: the student, the data, and where the work is done."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workers:
    """Where students are trained, and how many at a time; nothing of it changes what they learn.

    Args:
        workers: students at a time; 0 takes one a core, or as many as fit into Ray.
        ray: None trains in local processes, "local" in a Ray of its own, and an address in that Ray cluster.
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
