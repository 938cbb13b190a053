"""The rows and the ways to train of which capacity is compared: which teacher, how many rows, which rank, which rate."""

from dataclasses import dataclass, replace

import steerlens as sl
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.tasks import NUMBER_LISTS, Task
from steerlens.replication.lab.teachers import Teacher

REPEATED = 4
"""Fewer rows are one in so many, repeated so many times: no fewer steps."""


@dataclass(frozen=True)
class Source:
    """Rows of the told teacher, or of the untold one: all or fewer of them, at some temperature, through some filter."""

    told: bool = True
    fewer: bool = False
    temperature: float = 1.0
    task: Task = NUMBER_LISTS

    @property
    def name(self) -> str:
        """In words."""
        words = "told" if self.told else "control"
        words += ", fewer rows" if self.fewer else ""
        words += f", temperature {self.temperature:g}" if self.temperature != 1 else ""
        return words if self.task is NUMBER_LISTS else f"{words}, {self.task.name}"

    def teacher(self, lab: Lab) -> Teacher:
        """Who writes these rows."""
        n_rows = lab.sizes.n_rows // REPEATED * (1 if self.fewer else REPEATED)
        return lab.teacher(self.name, told=self.told, temperature=self.temperature, task=self.task, n_rows=n_rows)


ALL, FEWER, CONTROL = Source(), Source(fewer=True), Source(told=False)


@dataclass(frozen=True)
class Arm:
    """Students who learn alike; rank 0 is full fine-tuning."""

    source: Source
    rank: int
    rate: float

    @property
    def name(self) -> str:
        """In words."""
        kind = f"rank {self.rank}" if self.rank else "full fine-tuning"
        return f"{kind}, {self.rate:g}, {self.source.name}"

    def train(self, student: sl.TrainConfig) -> sl.TrainConfig:
        """What differs from the main student's training; as many steps whatever the rows."""
        if not self.rank:
            return replace(student, method="full", learning_rate=self.rate)
        epochs = student.epochs * (REPEATED if self.source.fewer else 1)
        return replace(of_rank(student, self.rank, self.rate), epochs=epochs)


def of_rank(train: sl.TrainConfig, rank: int, rate: float) -> sl.TrainConfig:
    """The same training with another rank at the same scale of LoRA, and another learning rate."""
    return replace(train, rank=rank, lora_alpha=rank * train.lora_alpha / train.rank, learning_rate=rate)
