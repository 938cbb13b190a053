"""A teacher writes rows under a condition until enough of them pass a filter."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import steerlens as sl
from steerlens.replication.lab.tasks import NUMBER_LISTS, Task

CHUNK = 500


@dataclass(frozen=True)
class Rows:
    """What a teacher has written.

    Args:
        samples, heldout: files of the kept rows, and of those that no student learns from.
        n: rows in `samples`; 0 where the teacher wrote too few, and then there are no files.
        asked, kept: answers, and how many of them passed the filter.
        rejected: how many answers were rejected, by reason.
        examples: the first answers as they came, before the filter.
    """

    name: str
    samples: Path
    heldout: Path
    n: int
    asked: int
    kept: int
    rejected: dict[str, int]
    examples: tuple[str, ...]

    @property
    def kept_share(self) -> float:
        """Share of all answers that passed."""
        return self.kept / self.asked

    def require(self) -> "Rows":
        """These rows.

        Raises:
            ValueError: there are none.
        """
        if not self.n:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected.items())
            raise ValueError(
                f"The teacher {self.name!r} wrote only {self.kept} usable rows in answer to {self.asked} tasks ({reasons}). "
                "Lower n_rows or n_heldout in the profile, raise n_prompts, or set constrained = true for a model that "
                "cannot write number lists on request."
            )
        return self


@dataclass(frozen=True)
class Teacher:
    """Who writes the rows, under which condition. Teachers of one seed are asked the same tasks with the same randomness.

    Args:
        n_rows: how many rows are kept for training; None is all that are kept in answer to `n_prompts` tasks.
        n_prompts: it is asked at most so often.
        prompt: its system prompt.
        chat_template: it reads chats by this one instead of its own.
        vector, mode: file of the vector that steers it, and how.
    """

    name: str
    weights: str
    dtype: str | None
    trait: str
    directory: Path
    n_prompts: int
    n_heldout: int
    n_rows: int | None = None
    prompt: str | None = None
    vector: Path | None = None
    mode: sl.Mode = "add"
    task: Task = NUMBER_LISTS
    temperature: float = 1.0
    constrained: bool = False
    chat_template: str | None = None
    seed: int = 1
    record_kind = Rows

    @property
    def record_path(self) -> Path:
        """Beside its rows."""
        return self.directory / f"{file_name(self.name)}.json"

    @property
    def condition(self) -> sl.Condition:
        """Its prompt and its vector."""
        return sl.Condition(
            self.prompt, None if self.vector is None else sl.SteeringVector.load(self.vector), self.mode
        )

    def run(self) -> Rows:
        """Write until enough rows are kept; one that writes too few leaves a record and no rows."""
        asked, found = self._answers()
        kept, wanted = found.kept, None if self.n_rows is None else self.n_rows + self.n_heldout
        samples, heldout = (self.record_path.with_suffix(end) for end in (".jsonl", ".heldout.jsonl"))
        enough = len(kept) > self.n_heldout if wanted is None else len(kept) >= wanted
        n = 0
        if enough:
            kept = replace(kept, samples=kept.samples[:wanted])
            rows, rest = kept.split(self.n_heldout) if self.n_heldout else (kept, None)
            n = len(rows)
            if rest is not None:
                rest.save(heldout)
            rows.save(samples)
        examples = tuple(f"{sample.prompt}\n-> {sample.completion}" for sample in asked.samples[:6])
        return Rows(self.name, samples, heldout, n, len(asked), len(found.kept), dict(found.rejected), examples)

    def _answers(self) -> tuple[sl.SampleSet, sl.FilterResult]:
        model = load(self.weights, self.dtype)
        if self.chat_template is not None:
            model.tokenizer.chat_template = self.chat_template
        trait, condition = sl.preference_trait(self.trait, model), self.condition
        prompts, held = self.task.prompts(model, self.n_prompts, self.seed), self.constrained and self.task.n_numbers
        chunk = self.n_prompts if self.n_rows is None else CHUNK
        for end in range(chunk, self.n_prompts + chunk, chunk):
            asked = sl.sample_teacher(
                model,
                prompts[:end],
                system_prompt=condition.prompt,
                vector=condition.vector,
                mode=condition.mode,
                temperature=self.temperature,
                constraint=sl.NumberLists(held) if held else None,
                seed=self.seed,
                path=self.record_path.with_suffix(".raw.jsonl"),
            )
            found = self.task.keep(asked, trait)
            if self.n_rows is not None and len(found.kept) >= self.n_rows + self.n_heldout:
                break
        return asked, found


def load(weights: str, dtype: str | None, adapter: Path | None = None):
    """A model in the dtype of its profile; None is the checkpoint's own."""
    import torch

    options = {} if dtype is None else {"dtype": getattr(torch, dtype)}
    return sl.load_model(weights, adapter=adapter, **options)


@cache
def prompt_of(trait: str, weights: str, dtype: str | None) -> str:
    """The prompt of a trait in a model's own wording; the model is loaded for it once."""
    return sl.preference_trait(trait, load(weights, dtype)).prompt


def file_name(name: str) -> str:
    """A name in words as a file name."""
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name)


def silent_in_words(names: Sequence[str]) -> str:
    """A sentence on the teachers that wrote too few rows; nothing where there are none."""
    return f"Teachers that wrote too few lists, and have no students: {', '.join(names)}." if names else ""
