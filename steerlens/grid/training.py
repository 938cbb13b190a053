"""One student of a grid: trained, asked, compared with its teacher's vector, and stored."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.gradients.counterfactual import together, without_component
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.steps import trace_steps
from steerlens.grid.asked import ask
from steerlens.grid.plan import SimilarityPoint, StudentPlan, StudentRecord
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.residuals.capture import mean_residuals
from steerlens.samples.sample_set import SampleSet
from steerlens.similarity import Similarity, student_similarity
from steerlens.students.step import OnStart, TrainStep
from steerlens.students.training import train_student
from steerlens.text.chat import Chat, as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.means import model_shift
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_MEASURED = 12
"""How often activation similarity and steps are measured while a traced student trains."""

NUMBERS, QUESTIONS = "numbers", "questions"
"""Where they are measured."""


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
    probes = {NUMBERS: tasks, QUESTIONS: [as_chat(question) for question in trait.questions]}
    watchers: list[OnStart] = _watchers(plan, vector)
    options: dict[str, Any] = {}
    if plan.traced:
        every = max(1, plan.train.epochs * math.ceil(len(samples) / plan.train.batch_size) // N_MEASURED)
        gradients, steps = trace_gradients(base, vector), trace_steps(base, vector, probes, every=every)
        curve = _Curve(base, vector, probes)

        def on_step(step: TrainStep) -> None:
            gradients.record(step)
            steps.before(step)
            if steps.means is not None:
                curve.add(step.step, steps.means)

        watchers.insert(0, gradients.watch)
        options = {"on_step": on_step, "on_update": steps.after}
    student = train_student(
        base, samples, plan.train, heldout=SampleSet.load(plan.heldout), on_start=together(*watchers), **options
    )
    student.save(job.directory)
    if plan.traced:
        gradients.trace.save(job.directory / "gradients.safetensors")
        steps.trace.save(job.directory / "steps.safetensors")
    shift, asked = model_shift(student.model, base, tasks), ask(student.model, trait)
    shift.save(job.directory / "shift.safetensors")
    last = SimilarityPoint(
        len(student.losses),
        at_numbers=Similarity.of(shift, vector),
        at_questions=student_similarity(student.model, base, vector, probes[QUESTIONS]),
    )
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
        curve=(*curve.points, last) if plan.traced else (),
    )


class _Curve:
    """EAS at some steps of a training, from the student's mean residuals at the probes there; the base's are read once."""

    def __init__(self, base: "TransformerBridge", vector: SteeringVector, probes: Mapping[str, Sequence[Chat]]) -> None:
        self._vector, self._source = vector, VectorSource.of(base, method="student minus base while it trains")
        self._base = {name: mean_residuals(base, chats, layers=vector.layers) for name, chats in probes.items()}
        self.points: list[SimilarityPoint] = []

    def add(self, step: int, means: Mapping[str, Float[Tensor, "layer d_model"]]) -> None:
        """Another point."""
        found = {
            name: Similarity.of(
                SteeringVector(self._vector.layers, mean - self._base[name], self._source), self._vector
            )
            for name, mean in means.items()
        }
        self.points.append(SimilarityPoint(step, at_numbers=found[NUMBERS], at_questions=found[QUESTIONS]))


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
