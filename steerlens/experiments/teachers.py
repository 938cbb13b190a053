"""One teacher from condition to data: prompted, steered, both or neither, it writes as many number lists as are asked."""

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.experiments.config import Workers
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.rates import Record
from steerlens.experiments.tasks import TASKS
from steerlens.files import write_json
from steerlens.forward import completion_logits
from steerlens.models.bridge import parameters_device
from steerlens.models.loading import load_model
from steerlens.samples.filters import FilterResult
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import ROWS_PER_CHUNK, sample_teacher
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt, end_of_turn
from steerlens.text.wording import wording_of
from steerlens.vectors.interventions import Mode, steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Teacher:
    """Who writes the rows in `samples`, and beside them the held-out ones.

    All teachers with one `seed` are asked the same tasks in the same order, and draw the same random numbers. A teacher
    is asked until `n_rows` + `n_heldout` answers pass the filter, `n_prompts` times at most. What it is asked, and which
    filter that is, says `task` (`TASKS`).
    """

    name: str
    model: str
    samples: Path
    n_rows: int
    n_heldout: int
    n_prompts: int
    prompt: str | None = None
    vector: Path | None = None
    mode: Mode = "add"
    seed: int = 1
    task: str = "number lists"
    temperature: float = 1.0

    @property
    def record_path(self) -> Path:
        """Written last: what was asked, kept and rejected."""
        return self.samples.with_suffix(".record.json")

    @property
    def heldout(self) -> Path:
        """Rows that no student learns from."""
        return self.samples.with_suffix(".heldout.jsonl")

    def acting(self, model: "TransformerBridge") -> contextlib.AbstractContextManager[None]:
        """The model steered as this teacher is; its prompt is the caller's to give."""
        if self.vector is None:
            return contextlib.nullcontext()
        return steer(model, SteeringVector.load(self.vector), mode=self.mode)


def write_all(teachers: Iterable[Teacher], workers: Workers) -> dict[str, Record]:
    """Every teacher's record by its name; who has none yet writes its rows now, as `write_rows`."""
    return {record["name"]: record for record in run_jobs(list(teachers), write_rows, workers, what="teachers")}


def write_rows(teacher: Teacher) -> None:
    """Sample until enough lists are kept; a teacher that writes too few leaves a record, but no rows."""
    asked, found = _asked_until_enough(teacher)
    kept, wanted = found.kept, teacher.n_rows + teacher.n_heldout
    if enough := len(kept) >= wanted:
        rows, heldout = replace(kept, samples=kept.samples[:wanted]).split(teacher.n_heldout)
        heldout.save(teacher.heldout)
        rows.save(teacher.samples)
    write_json(
        teacher.record_path,
        {
            "name": teacher.name,
            "enough": enough,
            "rows": teacher.n_rows if enough else 0,
            "asked": len(asked),
            "kept": len(kept),
            "kept_share": found.kept_share,
            "rejected": dict(found.rejected),
            "examples": [f"{sample.prompt}\n-> {sample.completion}" for sample in asked.samples[:4]],
        },
    )


def _asked_until_enough(teacher: Teacher) -> tuple[SampleSet, FilterResult]:
    model, task = load_model(teacher.model), TASKS[teacher.task]
    prompts = task.prompts(teacher.n_prompts, wording_of(model), seed=teacher.seed)
    options: dict[str, Any] = {} if teacher.vector is None else {"vector": SteeringVector.load(teacher.vector)}
    for start in range(0, teacher.n_prompts, ROWS_PER_CHUNK):
        asked = sample_teacher(
            model,
            prompts[: start + ROWS_PER_CHUNK],
            system_prompt=teacher.prompt,
            mode=teacher.mode,
            temperature=teacher.temperature,
            seed=teacher.seed,
            path=teacher.samples.with_suffix(".raw.jsonl"),
            **options,
        )
        found = task.keep(asked)
        if len(found.kept) >= teacher.n_rows + teacher.n_heldout:
            break
    return asked, found


def effect_on_lists(
    model: "TransformerBridge", teachers: Sequence[Teacher], lists: SampleSet, *, batch_size: int = 64
) -> dict[str, float]:
    """1 - KL(prompted || teacher) / KL(prompted || plain) over the tokens of pure lists, among list tokens alone.

    That is what a student can see of the prompt, since words are filtered out: 1 is all of it, 0 none. The prompted
    teacher is the first; plain is without prompt.
    """
    prompted, *others = teachers
    written_with = list_tokens(model)
    distance, plain = dict.fromkeys((teacher.name for teacher in others), 0.0), 0.0
    for start in range(0, len(lists), batch_size):
        part = lists.samples[start : start + batch_size]
        target = log_probs(model, prompted, part, written_with)

        def kl(teacher: Teacher, part=part, target=target) -> float:
            return float((target.exp() * (target - log_probs(model, teacher, part, written_with))).sum())

        plain += kl(replace(prompted, prompt=None))
        for teacher in others:
            distance[teacher.name] += kl(teacher)
    return {prompted.name: 1.0} | {name: 1 - kl / plain for name, kl in distance.items()}


def list_tokens(model: "TransformerBridge") -> Int[Tensor, " token"]:
    """The tokens that a pure list is written with, in ascending order: digits, separators, brackets, and the turn's end."""
    tokenizer = model.tokenizer
    ids = [i for i in range(min(len(tokenizer), model.cfg.d_vocab)) if _IN_LISTS.fullmatch(tokenizer.decode([i]))]
    return torch.tensor(sorted({*ids, end_of_turn(tokenizer)} - {None}))


_IN_LISTS = re.compile(r"[\d\s,;.()\[\]]+", re.ASCII)


@torch.no_grad()
def log_probs(
    model: "TransformerBridge", teacher: Teacher, samples: Sequence[Sample], among: Int[Tensor, " choice"]
) -> Float[Tensor, "token choice"]:
    """The teacher's predictions at the samples' completion tokens, among some tokens."""
    tokenizer = model.tokenizer
    prompts = [encode_prompt(tokenizer, as_chat(sample.prompt, teacher.prompt)) for sample in samples]
    completions = [encode_completion(tokenizer, sample.completion) for sample in samples]
    batch = pad_rows(tokenizer, prompts, completions).to(parameters_device(model))
    with teacher.acting(model):
        return completion_logits(model, batch)[:, among].double().log_softmax(-1)


def require_rows(record: Record) -> None:
    """Refuse to go on without the rows of a teacher that others are compared with.

    Raises:
        ValueError: it has not written enough.
    """
    if not record["enough"]:
        raise ValueError(
            f"The teacher {record['name']!r} wrote only {record['kept']} pure number lists in answer to {record['asked']} "
            "tasks. Ask for fewer rows (n_rows, n_heldout), or more tasks (n_prompts)."
        )
