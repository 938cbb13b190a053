"""One student from data to record: the unit that a run repeats, stores, and finds again when it is resumed."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partialmethod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from steerlens.files import read_json, write_json
from steerlens.students.config import TrainConfig

EAS_POINTS = 12
"""How often activation similarity is measured during a traced run."""


@dataclass(frozen=True)
class Cell:
    """A student to train: `base` learns from `samples` (written by the teacher `data`).

    `vector` is the teacher's vector on `base`, to which gradients and shifts are compared; with a `trace` path
    the gradients of every step are recorded there.
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

    @property
    def record_path(self) -> Path:
        """Written last: the cell is done when it exists."""
        return self.directory / "record.json"


def run_cells(cells: Sequence[Cell], workers: int) -> list[dict[str, Any]]:
    """Train every cell that has no record yet, `workers` at a time, and return all records in order.

    Raises:
        RuntimeError: some cells failed; the others' records are on disk all the same.
    """
    missing = [cell for cell in cells if not cell.record_path.is_file()]
    progress = tqdm(total=len(cells), initial=len(cells) - len(missing), desc="students", unit="student")
    failures = []
    with (
        progress,
        ProcessPoolExecutor(
            max_workers=workers or os.cpu_count() or 1,
            mp_context=get_context("spawn"),
            initializer=_quiet_single_thread,
        ) as pool,
    ):
        running = {pool.submit(run_cell, cell): cell for cell in missing}
        try:
            for future in as_completed(running):
                if (error := future.exception()) is not None:
                    failures.append(f"{running[future].name}: {type(error).__name__}: {error}")
                progress.update()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise RuntimeError("Some students failed; run again to retry them alone.\n" + "\n".join(failures))
    return [read_json(cell.record_path) for cell in cells]


def _quiet_single_thread() -> None:
    """In a worker: the parent's progress bar is the only one, and workers do not fight for cores."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # pyright: ignore[reportAttributeAccessIssue]
    torch.set_num_threads(1)


def run_cell(cell: Cell) -> None:
    """Train, score and store one student."""
    from steerlens.evaluation import score_trait
    from steerlens.gradients.trace import trace_gradients
    from steerlens.models import load_model
    from steerlens.prompts.chat import as_chat
    from steerlens.prompts.numbers import number_prompts
    from steerlens.prompts.traits import preference_trait
    from steerlens.samples.sample_set import SampleSet
    from steerlens.students.training import TrainStep, train_student
    from steerlens.vectors.means import model_shift
    from steerlens.vectors.vector import SteeringVector

    base, trait = load_model(cell.base, device="cpu"), preference_trait(cell.trait)
    vector = SteeringVector.load(cell.vector)
    chats = [as_chat(prompt) for prompt in number_prompts(96, seed=9)]
    recorder = trace_gradients(base, vector, positions="all")
    curve: list[dict[str, Any]] = []

    def on_step(step: TrainStep) -> None:
        recorder.record(step)
        if step.step % max(1, step.n_steps // EAS_POINTS) == 0:
            similarity = model_shift(step.model, base, chats).cosine(vector)
            curve.append({"step": step.step, "eas": list(similarity.values())})

    student = train_student(
        base,
        SampleSet.load(cell.samples),
        cell.train,
        heldout=SampleSet.load(cell.heldout),
        **({"on_start": recorder.watch, "on_step": on_step} if cell.trace is not None else {}),
    )
    student.save(cell.directory)
    shift = model_shift(student.model, base, chats)
    shift.save(cell.directory / "v_student.safetensors")
    if cell.trace is not None:
        recorder.trace.save(cell.trace)
    bare = score_trait(student.model, trait)
    prefixed = score_trait(student.model, trait, context="after_numbers")
    low, high = bare.interval()
    eas = list(shift.cosine(vector).values())
    shift_at_questions = model_shift(student.model, base, [as_chat(question) for question in trait.questions])
    write_json(
        cell.record_path,
        {
            "name": cell.name,
            "role": cell.role,
            "base": cell.base,
            "data": cell.data,
            "optimizer": cell.train.optimizer,
            "learning_rate": cell.train.learning_rate,
            "clip_norm": cell.train.clip_norm,
            "seed": cell.train.seed,
            "loss": student.loss,
            "heldout_loss": student.heldout_loss,
            "rate": bare.rate,
            "rate_low": low,
            "rate_high": high,
            "mass": bare.mass,
            "rate_prefixed": prefixed.rate,
            "mass_prefixed": prefixed.mass,
            "eas": eas,
            "strength_numbers": list(shift.strength_along(vector).values()),
            "strength_questions": list(shift_at_questions.strength_along(vector).values()),
            "eas_curve": [*curve, {"step": len(student.losses), "eas": eas}],
            "shares": bare.shares[:, bare.answers.index(trait.name)].tolist(),
            "shares_prefixed": prefixed.shares[:, prefixed.answers.index(trait.name)].tolist(),
            "chat_fingerprint": bare.chat_fingerprint,
            "config": asdict(cell.train),
        },
    )
