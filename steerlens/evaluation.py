"""How strongly a model shows a trait: one scorer for base, prompted, steered and trained models."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.answers.forms import answer_tokens
from steerlens.answers.probabilities import answer_probabilities
from steerlens.answers.tree import AnswerTree
from steerlens.arguments import checked
from steerlens.generation import generate
from steerlens.models.bridge import is_watched
from steerlens.models.identity import model_name, training_context
from steerlens.stats import bootstrap_interval, swap_p
from steerlens.text.chat import Chat, chat_fingerprint, encode_prompt
from steerlens.text.context import warn_on_other_context
from steerlens.text.number_lists import after_numbers
from steerlens.text.trait import Trait, check_wording
from steerlens.text.wording import wording_of
from steerlens.warn import warn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Context = Literal["bare", "after_numbers"]
LOW_MASS = 0.05
"""With less mass than this on the possible answers, a rate says little: the model replies something else."""

STILL_ANSWERS = 0.5
"""A model with less mass than this on the possible answers no longer answers."""


class LowMassWarning(UserWarning):
    """A rate is a share of next to nothing."""


@dataclass(frozen=True)
class TraitScore:
    """Answer probabilities of one model to a trait's questions, exact from the logits.

    `probabilities` is [question answer], the probability that the answer's text begins with one of that
    answer's forms. The last two are of sampled replies, all questions together, and NaN without any: `named_share` is the
    share of replies that name one of the answers anywhere in their first 16 tokens (so it may be above `mass`), and
    `sampled_rate` the share of these that name the trait's own first, as `rate` is a share of answers; NaN where none names
    any.
    """

    trait: str
    answers: tuple[str, ...]
    context: Context
    chat_fingerprint: str
    probabilities: Float[Tensor, "question answer"]
    sampled_rate: float = math.nan
    named_share: float = math.nan

    def __repr__(self) -> str:
        low, high = self.interval()
        return (
            f"TraitScore: rate of {self.trait!r} among {len(self.answers)} answers {self.rate:.3f} ({low:.3f} to {high:.3f}), "
            f"answer mass {self.mass:.3f}, at {len(self.probabilities)} questions ({self.context})"
        )

    @property
    def mass(self) -> float:
        """Probability that an answer is one of the possible answers at all: is the model still answering?"""
        return float(self.probabilities.sum(-1).mean())

    @property
    def shares(self) -> Float[Tensor, "question answer"]:
        """`probabilities`, normalised over the answers of each question; in float64, where a rate near 1 is not 1."""
        probabilities = self.probabilities.double()
        return probabilities / probabilities.sum(-1, keepdim=True)

    @property
    def rate(self) -> float:
        """Share of the trait's own answer among all answers, averaged over questions."""
        return float(self._trait_shares.mean())

    @property
    def log_odds(self) -> float:
        """Log odds of `rate`."""
        return float(np.log(self.rate) - np.log1p(-self.rate))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of `rate` over questions."""
        found = bootstrap_interval(np.mean, self._trait_shares.numpy(), level=level)
        return found.low, found.high

    @checked
    def total_variation(self, base: "TraitScore") -> tuple[float, float]:
        """Distance of the mean answer distribution from `base`'s, 0 to 1, and its permutation p-value.

        The null hypothesis is that for each question the labels "this model" and "base" could be swapped.

        Raises:
            ValueError: the scores belong to different traits or numbers of questions.
        """
        _check_comparable(self, base)
        ours, theirs = self.shares.numpy(), base.shares.numpy()
        differences = (ours - theirs) / len(ours)  # [question answer]
        return float(np.abs(differences.sum(0)).sum() / 2), swap_p(differences)

    @property
    def _trait_shares(self) -> Float[Tensor, " question"]:
        return self.shares[:, self.answers.index(self.trait)]


@checked
def score_trait(
    model: "TransformerBridge",
    trait: Trait,
    *,
    context: Context = "bare",
    system_prompt: str | None = None,
    samples_per_question: int = 0,
    seed: int = 0,
) -> TraitScore:
    """Ask the trait's questions and read the probability of every answer from the logits.

    An answer's probability is the sum over its written forms (capitalised or not, behind a space or not) of the
    probability that the reply begins with that form's tokens. What begins with several forms counts once, for the longest.
    The questions run once, and the answers' tokens behind them (`steerlens.answers`).

    Args:
        context: the question alone ("bare"), or behind a number list in the same user turn
            ("after_numbers", with lists drawn from `seed`), as in Cloud et al., appendix B.
        samples_per_question: also sample that many replies at temperature 1, for `sampled_rate` and `named_share`.

    Warns:
        ChatContextWarning: the model is a student that was trained in another chat context.
        LowMassWarning: the model hardly gives any of the answers, so that the rate says little.

    Raises:
        ValueError: unknown context, a question that cannot be rendered or does not fit into the model's context, a built-in
            trait made for another wording, or a form that the tokenizer does not know or cannot tell from another answer's.
        FloatingPointError: the model's logits are NaN or infinite.
    """
    options = {
        "context": context,
        "system_prompt": system_prompt,
        "samples_per_question": samples_per_question,
        "seed": seed,
    }
    score = score_quietly(model, trait, **options)
    if not score.mass >= LOW_MASS:
        warn(_low_mass(model, trait, score), LowMassWarning)
    return score


def _low_mass(model: "TransformerBridge", trait: Trait, score: TraitScore) -> str:
    if trait.reply_prefix:
        begun = "Begin its replies with other words (reply_prefix)"
    elif wording_of(model).begun_reply:
        begun = (
            f"Begin its replies (preference_trait({trait.name!r}, model, begun=True), --begin-reply on the command line, or "
            "reply_prefix in a Trait of your own)"
        )
    else:
        begun = "Begin its replies (reply_prefix in a Trait of your own)"
    broken = "The model is steered, and too large a strength breaks it: lower it. " if is_watched(model) else ""
    return (
        f"Only {score.mass:.2g} of the probability is on the {len(score.answers)} answers, and the rate is a share of that. "
        f"{broken}{begun}, or ask other questions."
    )


@torch.no_grad()
def score_quietly(
    model: "TransformerBridge",
    trait: Trait,
    *,
    context: Context = "bare",
    system_prompt: str | None = None,
    samples_per_question: int = 0,
    seed: int = 0,
) -> TraitScore:
    """`score_trait` without its warning of low mass, for callers that record the mass."""
    if context not in ("bare", "after_numbers"):
        raise ValueError(f"context={context!r} is not known. Allowed: bare, after_numbers.")
    check_wording(trait, model)
    fingerprint = chat_fingerprint(model.tokenizer, system_prompt)
    warn_on_other_context(training_context(model), fingerprint, f"The student of {model_name(model)!r}")
    questions = [
        question if context == "bare" else after_numbers(question, model, seed=seed * 100_003 + i)
        for i, question in enumerate(trait.questions)
    ]
    chats = [trait.chat(question, system_prompt) for question in questions]
    tree = AnswerTree.of(answer_tokens(model.tokenizer, trait.answers))
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    sampled_rate, named_share = _sampled(model, trait, chats, samples_per_question, seed)
    return TraitScore(
        trait=trait.name,
        answers=tuple(trait.answers),
        context=context,
        chat_fingerprint=fingerprint,
        probabilities=answer_probabilities(model, prompts, tree, own=list(trait.answers).index(trait.name)),
        sampled_rate=sampled_rate,
        named_share=named_share,
    )


def _sampled(
    model: "TransformerBridge", trait: Trait, chats: Sequence[Chat], samples_per_question: int, seed: int
) -> tuple[float, float]:
    """`sampled_rate` and `named_share`; an answer is named where one of its forms stands as a whole word."""
    if not samples_per_question:
        return math.nan, math.nan
    asked = [chat for chat in chats for _ in range(samples_per_question)]
    named = {form.lower(): answer for answer, forms in trait.answers.items() for form in forms}
    pattern = re.compile(r"\b(" + "|".join(sorted(map(re.escape, named), key=len, reverse=True)) + r")\b")
    replies = [
        model.tokenizer.decode(ids, skip_special_tokens=True).lower()
        for ids in generate(model, asked, max_new_tokens=16, seed=seed)
    ]
    first = [named[match[1]] for reply in replies if (match := pattern.search(reply)) is not None]
    return first.count(trait.name) / len(first) if first else math.nan, len(first) / len(replies)


@checked
def compare_log_odds(one: TraitScore, other: TraitScore, level: float = 0.95) -> tuple[float, float, float]:
    """`one.log_odds` - `other.log_odds`, with its bootstrap interval over questions (paired).

    Raises:
        ValueError: the scores belong to different traits or numbers of questions.
    """
    _check_comparable(one, other)
    ours, theirs = (score._trait_shares.numpy() for score in (one, other))

    def difference(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> Any:
        one, other = ours.mean(axis), theirs.mean(axis)
        return np.log(one) - np.log1p(-one) - np.log(other) + np.log1p(-other)

    found = bootstrap_interval(difference, ours, theirs, level=level)
    return found.value, found.low, found.high


def _check_comparable(one: TraitScore, other: TraitScore) -> None:
    ours, theirs = ((score.trait, score.answers, len(score.probabilities)) for score in (one, other))
    if ours != theirs:
        raise ValueError(
            f"The two scores belong to different traits or questions ({ours[0]!r}, {ours[2]} questions; {theirs[0]!r}, "
            f"{theirs[2]} questions). Score both with one trait."
        )
