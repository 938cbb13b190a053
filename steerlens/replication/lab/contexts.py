"""What a student answers under other system prompts than it was trained under."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.teachers import load

SYSTEM_PROMPTS = ("Answer the user.", "Be brief and polite.")
"""Other system prompts under which students are asked; they were trained under the template's default."""


@dataclass(frozen=True)
class InContexts:
    """A student's and its base's answers, by the system prompt under which they are asked; "" is as trained."""

    student: dict[str, sl.Asked]
    base: dict[str, sl.Asked]


@dataclass(frozen=True)
class ContextCheck:
    """A student that is asked under other system prompts than it was trained under."""

    weights: str
    dtype: str | None
    trait: str
    begun: bool
    student: Path
    record_kind = InContexts

    @property
    def name(self) -> str:
        """The student's."""
        return self.student.name

    @property
    def record_path(self) -> Path:
        """Beside the student's own record."""
        return self.student / "contexts.json"

    def run(self) -> InContexts:
        """Ask both."""
        base, student = (load(self.weights, self.dtype, adapter) for adapter in (None, self.student))
        trait = sl.preference_trait(self.trait, base, begun=self.begun)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.ChatContextWarning)  # other contexts are the question here
            found = [
                {prompt: sl.ask(model, trait, system_prompt=prompt or None) for prompt in ("", *SYSTEM_PROMPTS)}
                for model in (student, base)
            ]
        return InContexts(*found)


def mean_rates(checks: Sequence[InContexts]) -> dict[str, tuple[float, float]]:
    """The trait's mean rate in the students and in their bases, by system prompt."""
    return {
        prompt: (compare.rate([one.student[prompt] for one in checks]), compare.rate([one.base[prompt] for one in checks]))
        for prompt in checks[0].student
    }  # fmt: skip
