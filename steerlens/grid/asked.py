"""How a model answers a trait's questions, in both contexts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from jaxtyping import Float

from steerlens.arguments import checked
from steerlens.evaluation import score_quietly
from steerlens.records import ARRAY
from steerlens.text.trait import Trait

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


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
