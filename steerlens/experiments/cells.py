"""One student from data to record: the unit that a run repeats, stores, and finds again when it is resumed."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steerlens.evaluation import score_trait
from steerlens.files import write_json
from steerlens.gradients.counterfactual import together, without_component
from steerlens.gradients.recorder import GradientRecorder, trace_gradients
from steerlens.gradients.steps import trace_steps
from steerlens.models.bridge import evaluating, huggingface_model
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import SampleSet
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

EAS_POINTS = 12
"""How often activation similarity is measured during a traced run."""


@dataclass(frozen=True)
class Cell:
    """A student to train: `base` learns from `samples` (written by the teacher `data`).

    `vector` is the teacher's vector on `base`, to which gradients and shifts are compared; with a `trace` path
    the gradients of every step are recorded there, with a `steps` path some steps' updates along the vector. Trained
    parameters whose name contains `held` stay as they started; `without_vector` takes the vector's direction out of every
    activation gradient, after it was recorded.
    """

    name: str
    role: str
    base: str
    data: str
    samples: Path
    heldout: Path
    vector: Path
    trait: str
    train: TrainConfig
    directory: Path
    trace: Path | None = None
    steps: Path | None = None
    held: str | None = None
    without_vector: bool = False

    @property
    def record_path(self) -> Path:
        """Written last: the cell is done when it exists."""
        return self.directory / "record.json"


def run_cell(cell: Cell) -> None:
    """Train, score and store one student."""
    base, vector = load_model(cell.base), SteeringVector.load(cell.vector)
    samples, trait = SampleSet.load(cell.samples), preference_trait(cell.trait, base)
    recorder, curve = trace_gradients(base, vector), list[dict[str, Any]]()
    n_steps = cell.train.epochs * math.ceil(len(samples) / cell.train.batch_size)
    probes = {"numbers": number_chats(base), "questions": [as_chat(question) for question in trait.questions]}
    steps = None if cell.steps is None else trace_steps(base, vector, probes, every=max(1, n_steps // EAS_POINTS))

    def on_step(step: TrainStep) -> None:
        recorder.record(step)
        if step.step % max(1, step.n_steps // EAS_POINTS) == 0:
            curve.append({"step": step.step} | _similarity(step.model, base, vector, trait))
        if steps is not None:
            steps.before(step)

    student = train_student(
        base,
        samples,
        cell.train,
        heldout=SampleSet.load(cell.heldout),
        on_start=together(*_watchers(cell, recorder, vector)),
        on_step=None if cell.trace is None else on_step,
        on_update=None if steps is None else steps.after,
    )
    student.save(cell.directory)
    if cell.trace is not None:
        recorder.trace.save(cell.trace)
    if cell.steps is not None and steps is not None:
        steps.trace.save(cell.steps)
    model_shift(student.model, base, number_chats(base)).save(cell.directory / "v_student.safetensors")
    similarity = _similarity(student.model, base, vector, trait)
    measured = behaviour(student.model, trait) | similarity
    measured["eas_curve"] = [*curve, {"step": len(student.losses)} | similarity]
    losses = {"loss": student.loss, "heldout_loss": student.heldout_loss}
    write_json(cell.record_path, settings(cell) | losses | measured)


def settings(cell: Cell) -> dict[str, Any]:
    """What a record says of how its student was trained."""
    return {
        "name": cell.name,
        "role": cell.role,
        "base": cell.base,
        "data": cell.data,
        "optimizer": cell.train.optimizer,
        "learning_rate": cell.train.learning_rate,
        "clip_norm": cell.train.clip_norm,
        "seed": cell.train.seed,
        "config": asdict(cell.train),
    }


def _watchers(cell: Cell, recorder: GradientRecorder, vector: SteeringVector) -> list[OnStart]:
    """What is attached to the student while it trains."""
    watchers: list[OnStart] = [] if cell.trace is None else [recorder.watch]
    if cell.held is not None:
        watchers.append(held_at_start(cell.held))
    if cell.without_vector:
        watchers.append(without_component(vector))
    return watchers


def held_at_start(part: str) -> OnStart:
    """An `on_start` that zeroes the gradients of trained parameters whose name contains `part`, as they arise.

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


def number_chats(model: "TransformerBridge") -> list[Chat]:
    """The number tasks at which students' residuals are compared to their base's."""
    return [as_chat(prompt) for prompt in number_prompts(96, model, seed=9)]


def behaviour(model: "TransformerBridge", trait: Trait, *, system_prompt: str | None = None) -> dict[str, Any]:
    """Rates of the trait in both contexts, each question's share, and how the bare answers are distributed."""
    bare, prefixed = (
        score_trait(model, trait, context=context, system_prompt=system_prompt) for context in ("bare", "after_numbers")
    )
    low, high = bare.interval()
    own = bare.answers.index(trait.name)
    return {
        "rate": bare.rate,
        "rate_low": low,
        "rate_high": high,
        "mass": bare.mass,
        "rate_prefixed": prefixed.rate,
        "mass_prefixed": prefixed.mass,
        "answers": dict(zip(bare.answers, bare.shares.mean(0).tolist(), strict=True)),
        "shares": bare.shares[:, own].tolist(),
        "shares_prefixed": prefixed.shares[:, own].tolist(),
        "chat_fingerprint": bare.chat_fingerprint,
    }


def _similarity(
    student: "TransformerBridge", base: "TransformerBridge", vector: SteeringVector, trait: Trait
) -> dict[str, list[float]]:
    """Where training moved the residuals, next to the teacher's vector, by layer: on number tasks and at the questions."""
    with evaluating(student):
        at_numbers = model_shift(student, base, number_chats(base))
        at_questions = model_shift(student, base, [as_chat(question) for question in trait.questions])
    return {
        "eas": list(at_numbers.cosine(vector).values()),
        "eas_questions": list(at_questions.cosine(vector).values()),
        "strength_numbers": list(at_numbers.strength_along(vector).values()),
        "strength_questions": list(at_questions.strength_along(vector).values()),
    }
