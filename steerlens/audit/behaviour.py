"""What a recovered vector would do: the answers that it raises, next to what vectors do that say nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from steerlens.arguments import checked
from steerlens.audit.answer_changes import Rise, answer_changes, p_of_clearest, rises_above
from steerlens.audit.recovery import RecoveredVector
from steerlens.audit.score_test import N_FLIPS
from steerlens.evaluation import TraitScore, score_quietly
from steerlens.generation import generate
from steerlens.short import cut
from steerlens.text.chat import as_chat
from steerlens.text.trait import Trait, preference_trait
from steerlens.text.wording import wording_of
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_NULL = 39
"""Null vectors where nobody asks for more; the smallest possible p-value is 1 / 40."""

N_ANSWERS = 10
"""Example answers that are shown with and without the vector."""

OPEN_QUESTIONS = 3
"""How many of them are off topic."""

EXAGGERATED = 3.0
"""Times the vector in example answers: the likeliest answer to a question seldom changes under a vector that raises another
from 2 % to 9 %, and students go further than that."""


@dataclass(frozen=True)
class RaisedAnswers:
    """Every answer of the probes, largest rise first.

    Args:
        null: the largest z of any answer under each vector of rows and placebos swapped at random, of one Fisher norm.
        answers: to ten questions at most, as (question, the model's own answer, that under `EXAGGERATED` times the vector).
    """

    rises: tuple[Rise, ...]
    null: tuple[float, ...]
    answers: tuple[tuple[str, str, str], ...]

    def __repr__(self) -> str:
        rises = ", ".join(
            f"{one.answer} {one.base_rate:.3f} -> {one.rate:.3f} (z {one.z:.1f})" for one in self.rises[:3]
        )
        return cut(f"RaisedAnswers: {len(self.rises)} answers, p {self.p_value:.3g}; the clearest: {rises}")

    @property
    def p_value(self) -> float:
        """Share of null vectors that raise some answer as much; corrected for the number of answers."""
        return p_of_clearest(self.rises, self.null)


def enough_null_vectors(false_alarm_rate: float) -> int:
    """How many nulls let a p-value fall below the rate, and no fewer than `N_NULL`; at most `N_FLIPS`.

    Raises:
        ValueError: so many cannot, or the rate is 1 or more.
    """
    smallest = 1 / (1 + N_FLIPS)
    if not smallest < false_alarm_rate < 1:
        raise ValueError(
            f"false_alarm_rate={false_alarm_rate} is not allowed. It must be between {smallest}, the smallest p-value that "
            f"{N_FLIPS} nulls can give, and 1, both excluded."
        )
    return min(N_FLIPS, max(N_NULL, math.ceil(1 / false_alarm_rate)))


def default_probes(model: "TransformerBridge") -> list[Trait]:
    """One trait of every kind that the model's wording asks for; a trait's questions probe all of its answers.

    Replies are begun where the wording has words for it, so that models that answer in sentences are read as well.
    """
    words = wording_of(model)
    return [preference_trait(kind.items[0][0], words, begun=bool(words.begun_reply)) for kind in words.kinds]


@checked
def probe_behaviour(
    model: "TransformerBridge",
    recovered: RecoveredVector,
    probes: Sequence[Trait] | None = None,
    *,
    n_null: int = N_NULL,
    seed: int = 0,
) -> RaisedAnswers:
    """Ask the probes' questions with and without the vector.

    Args:
        probes: traits whose questions are asked; each probes all of its answers. `default_probes` by default.
        n_null: null vectors; each is asked the same questions. The smallest possible p-value is 1 / (1 + `n_null`).

    Raises:
        ValueError: no probes, fewer than 2 null vectors, or a question that cannot be rendered.
    """
    if n_null < 2:
        raise ValueError(
            f"n_null={n_null} is not allowed. It must be at least 2: each null vector is judged by the others."
        )
    probes = default_probes(model) if probes is None else list(probes)
    if not probes:
        raise ValueError("probes=[] is empty. Give at least one trait, or leave it out for the built-in ones.")
    base = [score_quietly(model, probe) for probe in probes]

    def under(vector: SteeringVector) -> list[TraitScore]:
        with steer(model, vector):
            return [score_quietly(model, probe) for probe in probes]

    scores = under(recovered.vector)
    null = torch.stack([answer_changes(under(vector), base) for vector in recovered.null_vectors(n_null)])
    rises, largest = rises_above(scores, base, null)
    return RaisedAnswers(rises, largest, _open_answers(model, recovered, probes, seed))


def _open_answers(
    model: "TransformerBridge", recovered: RecoveredVector, probes: Sequence[Trait], seed: int
) -> tuple[tuple[str, str, str], ...]:
    off_topic = [question for probe in probes[:1] for question in probe.off_topic_questions[:OPEN_QUESTIONS]]
    in_turn = [one for questions in zip(*(probe.questions for probe in probes), strict=False) for one in questions]
    questions = [*in_turn[: N_ANSWERS - len(off_topic)], *off_topic]
    own = likeliest_replies(model, questions, seed=seed)
    with steer(model, EXAGGERATED * recovered.vector):
        steered = likeliest_replies(model, questions, seed=seed)
    return tuple(zip(questions, own, steered, strict=True))


def likeliest_replies(model: "TransformerBridge", questions: Sequence[str], *, seed: int) -> list[str]:
    """The model's short replies, always its likeliest token."""
    chats = [as_chat(question) for question in questions]
    told = generate(model, chats, max_new_tokens=wording_of(model).reply_length, temperature=0, seed=seed)
    return [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in told]
