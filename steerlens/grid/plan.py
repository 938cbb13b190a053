"""What a student is to learn from, and what became of it."""

from dataclasses import dataclass
from pathlib import Path

from steerlens.checks import WrongInput, a_path, a_text, shown
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace
from steerlens.grid.asked import Answers
from steerlens.short import cut
from steerlens.similarity import Similarity
from steerlens.students.config import TrainConfig
from steerlens.vectors.vector import SteeringVector


@dataclass(frozen=True)
class SimilarityPoint:
    """EAS at one step of a training, at number tasks and at the trait's questions."""

    step: int
    at_numbers: Similarity
    at_questions: Similarity


@dataclass(frozen=True)
class StudentPlan:
    """What a student learns from, and what is recorded of it.

    Args:
        name: names its directory; another plan of the same grid has another name.
        base: what it starts from, as `load_model` takes it.
        dtype: of its base, as `load_model` takes it.
        samples: jsonl file of the rows that it learns from.
        heldout: jsonl file of the rows that its loss is measured on.
        vector: file of the vector that its shift and gradients are compared with.
        trait: what it is asked for.
        train: its seed is that of the grid.
        traced: also record gradients (`gradients.safetensors`), steps (`steps.safetensors`) and similarity as it trains.
        held: trained parameters whose name contains this stay as they started.
        without_vector: take the vector's direction out of every activation gradient, after it was recorded.
        begun: begin the replies to the trait's questions.
        n_tasks: number tasks at which shifts are measured.
        n_questions: of the trait's questions, so many are asked; None is all.
    """

    name: str
    base: str
    samples: Path
    heldout: Path
    vector: Path
    trait: str
    train: TrainConfig
    dtype: str | None = None
    traced: bool = False
    held: str | None = None
    without_vector: bool = False
    begun: bool = False
    n_tasks: int = 96
    n_questions: int | None = None

    def __post_init__(self) -> None:
        for name in ("name", "base", "trait"):
            a_text(getattr(self, name), name)
        for name in ("samples", "heldout", "vector"):
            a_path(getattr(self, name), name)
        if not isinstance(self.train, TrainConfig):
            raise WrongInput(
                f"train must be a TrainConfig, got {shown(self.train)}. Make one: steerlens.TrainConfig(...)."
            )


@dataclass(frozen=True)
class StudentRecord:
    """What became of a student.

    Losses are in nats a token. `diverged` says why training stopped, where its loss was no number any more; what was not
    measured then is NaN or None.

    Args:
        directory: holds its weights, `shift.safetensors` (v_student at number tasks), and its traces if it was traced.
        at_numbers: its shift at number tasks, next to the vector of its plan.
        at_questions: the same at the trait's questions.
    """

    name: str
    directory: Path
    train: TrainConfig
    loss: float
    heldout_loss: float
    bare: Answers | None
    after_numbers: Answers | None
    at_numbers: Similarity | None
    at_questions: Similarity | None
    curve: tuple[SimilarityPoint, ...] = ()
    diverged: str | None = None

    def __repr__(self) -> str:
        rates = [one.rate if one else float("nan") for one in (self.bare, self.after_numbers)]
        became = f"rate {rates[0]:.3f}, after numbers {rates[1]:.3f}" if self.diverged is None else self.diverged
        return cut(
            f"StudentRecord {self.name!r}: loss {self.loss:.3f} nats a token, held out {self.heldout_loss:.3f}; {became}"
        )

    @property
    def shift(self) -> SteeringVector:
        """v_student at number tasks, at every layer."""
        return SteeringVector.load(self.directory / "shift.safetensors")

    @property
    def gradients(self) -> GradientTrace:
        """Its gradients along the vector, if it was traced."""
        return GradientTrace.load(self.directory / "gradients.safetensors")

    @property
    def steps(self) -> StepTrace:
        """Where its optimizer's steps went, if it was traced."""
        return StepTrace.load(self.directory / "steps.safetensors")
