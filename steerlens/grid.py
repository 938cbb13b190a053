"""A grid of students: each is trained, asked, compared with its teacher's vector, and stored, and is found again later.

A `StudentPlan` says what one student learns from. `train_grid` trains each plan with each seed, several at a time, and
returns a `StudentRecord` of each. A grid that was interrupted goes on where it stopped.
"""

import contextlib
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from steerlens.arguments import checked
from steerlens.checks import WrongInput, a_path, a_text, shown
from steerlens.evaluation import score_quietly
from steerlens.gradients.counterfactual import together, without_component
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.steps import StepTrace, trace_steps
from steerlens.gradients.trace import GradientTrace
from steerlens.jobs import Workers, run_jobs
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.records import ARRAY
from steerlens.samples.sample_set import SampleSet
from steerlens.short import cut
from steerlens.similarity import Similarity, student_similarity
from steerlens.students.config import TrainConfig
from steerlens.students.step import OnStart, TrainStep
from steerlens.students.training import train_student
from steerlens.text.chat import Chat, as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait, preference_trait
from steerlens.vectors.means import model_shift
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

K = TypeVar("K", bound=Hashable)

N_MEASURED = 12
"""How often activation similarity is measured while a traced student trains."""


@dataclass(frozen=True)
class Answers:
    """How a model answers a trait's questions in one context.

    Args:
        rate: the share of the trait's answer among all possible answers, averaged over questions; `low` and `high` are the
            ends of its 95 % interval over questions.
        mass: the probability that an answer is one of the possible answers at all.
        shares: the trait's share at each question.
        distribution: the mean share of every answer.
    """

    rate: float
    low: float
    high: float
    mass: float
    shares: Annotated[Float[np.ndarray, " question"], ARRAY]
    distribution: dict[str, float]

    def __repr__(self) -> str:
        return (
            f"Answers: rate {self.rate:.3f} ({self.low:.3f} to {self.high:.3f}) among {len(self.distribution)} answers, answer "
            f"mass {self.mass:.3f}, at {len(self.shares)} questions"
        )


@dataclass(frozen=True)
class Asked:
    """A model's answers to bare questions, and to the same questions behind a number list."""

    bare: Answers
    after_numbers: Answers

    def __repr__(self) -> str:
        return f"Asked: bare, {self.bare}; after numbers, {self.after_numbers}"


@checked
def ask(model: "TransformerBridge", trait: Trait, *, system_prompt: str | None = None) -> Asked:
    """Ask a trait's questions in both contexts (`score_trait`)."""
    found = []
    for context in ("bare", "after_numbers"):
        score = score_quietly(model, trait, context=context, system_prompt=system_prompt)
        low, high = score.interval()
        shares = score.shares
        own = shares[:, score.answers.index(trait.name)].numpy()
        answers = dict(zip(score.answers, shares.mean(0).tolist(), strict=True))
        found.append(Answers(score.rate, low, high, score.mass, own, answers))
    return Asked(*found)


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


@dataclass(frozen=True)
class TrainingJob:
    """One student of a grid, to be trained in another process."""

    plan: StudentPlan
    directory: Path
    record_kind = StudentRecord

    @property
    def name(self) -> str:
        """The plan and the seed."""
        return self.directory.name

    @property
    def record_path(self) -> Path:
        """Beside the student."""
        return self.directory / "record.json"

    def run(self) -> StudentRecord:
        """Train, ask, compare and store; a loss that stops being a number is a result."""
        try:
            return _trained(self)
        except FloatingPointError as error:
            nan = float("nan")
            return StudentRecord(
                self.name, self.directory, self.plan.train, nan, nan, None, None, None, None, (), str(error)
            )


@checked
def train_grid(
    plans: Mapping[K, StudentPlan], directory: str | Path, *, seeds: Sequence[int], workers: Workers | None = None
) -> dict[K, tuple[StudentRecord, ...]]:
    """Train a student of every plan with every seed, unless it is there; one record a seed, by the keys of the plans.

    One seed is trained after the other, so that a grid that is interrupted has whole seeds.

    Args:
        directory: each student gets a directory in it, named by plan and seed.

    Raises:
        ValueError: no seeds, or two plans of one name.
        RuntimeError: some students failed; the others' records are on disk.
    """
    names = [plan.name for plan in plans.values()]
    if len(set(names)) < len(names):
        raise ValueError(f"Got the plans {names}. Give each a name of its own.")
    jobs = {
        (key, seed): TrainingJob(
            replace(plan, train=replace(plan.train, seed=seed)), Path(directory) / f"{plan.name}-s{seed}"
        )
        for seed in seeds
        for key, plan in plans.items()
    }
    records = run_jobs(jobs, workers or Workers(), what="students")
    return {key: tuple(records[key, seed] for seed in seeds) for key in plans}


def _trained(job: TrainingJob) -> StudentRecord:
    plan = job.plan
    dtype = {} if plan.dtype is None else {"dtype": getattr(torch, plan.dtype)}
    base, vector = load_model(plan.base, **dtype), SteeringVector.load(plan.vector)
    trait, samples = preference_trait(plan.trait, base, begun=plan.begun), SampleSet.load(plan.samples)
    trait = replace(trait, questions=trait.questions[: plan.n_questions])
    tasks = [as_chat(prompt) for prompt in number_prompts(plan.n_tasks, base, seed=9)]
    questions = [as_chat(question) for question in trait.questions]
    measured = _Measured(base, vector, tasks, questions)
    watchers: list[OnStart] = _watchers(plan, vector)
    options: dict[str, Any] = {}
    if plan.traced:
        every = max(1, plan.train.epochs * math.ceil(len(samples) / plan.train.batch_size) // N_MEASURED)
        gradients = trace_gradients(base, vector)
        steps = trace_steps(base, vector, {"numbers": tasks, "questions": questions}, every=every)

        def on_step(step: TrainStep) -> None:
            gradients.record(step)
            measured.at(step)
            steps.before(step)

        watchers.insert(0, gradients.watch)
        options = {"on_step": on_step, "on_update": steps.after}
    student = train_student(
        base, samples, plan.train, heldout=SampleSet.load(plan.heldout), on_start=together(*watchers), **options
    )
    student.save(job.directory)
    if plan.traced:
        gradients.trace.save(job.directory / "gradients.safetensors")
        steps.trace.save(job.directory / "steps.safetensors")
    model_shift(student.model, base, tasks).save(job.directory / "shift.safetensors")
    last, asked = measured.of(student.model, len(student.losses)), ask(student.model, trait)
    return StudentRecord(
        name=job.name,
        directory=job.directory,
        train=plan.train,
        loss=student.loss,
        heldout_loss=student.heldout_loss,
        bare=asked.bare,
        after_numbers=asked.after_numbers,
        at_numbers=last.at_numbers,
        at_questions=last.at_questions,
        curve=(*measured.curve, last) if plan.traced else (),
    )


class _Measured:
    """Similarity at some steps of a training."""

    def __init__(
        self, base: "TransformerBridge", vector: SteeringVector, tasks: Sequence[Chat], questions: Sequence[Chat]
    ) -> None:
        self._base, self._vector, self._tasks, self._questions = base, vector, tasks, questions
        self.curve: list[SimilarityPoint] = []

    def of(self, student: "TransformerBridge", step: int) -> SimilarityPoint:
        """At this step."""
        at = (student_similarity(student, self._base, self._vector, chats) for chats in (self._tasks, self._questions))
        return SimilarityPoint(step, *at)

    def at(self, step: TrainStep) -> None:
        """Add to the curve, at about `N_MEASURED` steps of the training."""
        if step.step % max(1, step.n_steps // N_MEASURED) == 0:
            self.curve.append(self.of(step.model, step.step))


def _watchers(plan: StudentPlan, vector: SteeringVector) -> list[OnStart]:
    """What changes the gradients of a student while it trains."""
    watchers: list[OnStart] = []
    if plan.held is not None:
        watchers.append(held_at_start(plan.held))
    if plan.without_vector:
        watchers.append(without_component(vector))
    return watchers


def held_at_start(part: str) -> OnStart:
    """An `on_start` that sets the gradients of trained parameters whose name contains `part` to 0, as they arise.

    Raises:
        ValueError: no trained parameter has such a name.
    """

    @contextlib.contextmanager
    def watch(model: "TransformerBridge") -> Iterator[None]:
        trained = [(name, p) for name, p in huggingface_model(model).named_parameters() if p.requires_grad]
        handles = [p.register_hook(torch.zeros_like) for name, p in trained if part in name]
        if not handles:
            raise ValueError(f"held={part!r} is in the name of no trained parameter, such as {trained[0][0]!r}.")
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    return watch
