"""One student of a grid: trained, asked, compared with its teacher's vector, and stored."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steerlens.gradients.counterfactual import together, without_component
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.steps import trace_steps
from steerlens.grid.asked import ask
from steerlens.grid.plan import SimilarityPoint, StudentPlan, StudentRecord
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import SampleSet
from steerlens.similarity import student_similarity
from steerlens.students.step import OnStart, TrainStep
from steerlens.students.training import train_student
from steerlens.text.chat import Chat, as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.means import model_shift
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_MEASURED = 12
"""How often activation similarity is measured while a traced student trains."""


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
