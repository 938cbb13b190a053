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

from steerlens.forward import check_numbers, forward, generate
from steerlens.models.bridge import parameters_device
from steerlens.models.identity import model_name, training_context
from steerlens.stats import bootstrap_interval, swap_p
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, chat_fingerprint, encode_prompt
from steerlens.text.context import warn_on_other_context
from steerlens.text.number_lists import after_numbers
from steerlens.text.trait import Trait, check_wording

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Context = Literal["bare", "after_numbers"]
STILL_ANSWERS = 0.5
"""A model with less mass than this on the possible answers no longer answers."""


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


@torch.no_grad()
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
    probability that the reply begins with that form's tokens; a form that another form begins with is
    counted once.

    Args:
        context: the question alone ("bare"), or behind a number list in the same user turn
            ("after_numbers", with lists drawn from `seed`), as in Cloud et al., appendix B.
        samples_per_question: also sample that many replies at temperature 1, for `sampled_rate` and `named_share`.

    Warns:
        ChatContextWarning: the model is a student that was trained in another chat context.

    Raises:
        ValueError: unknown context, a question that cannot be rendered, or a built-in trait made for another wording.
        FloatingPointError: the model's logits are NaN or infinite.
    """
    if context not in ("bare", "after_numbers"):
        raise ValueError(f"context={context!r} is not known. Allowed: bare, after_numbers.")
    check_wording(trait, model)
    fingerprint = chat_fingerprint(model.tokenizer, system_prompt)
    warn_on_other_context(training_context(model), fingerprint, f"The student of {model_name(model)!r}")
    questions = [
        question if context == "bare" else after_numbers(question, model, seed=seed * 100_003 + i)
        for i, question in enumerate(trait.questions)
    ]
    chats = [as_chat(question, system_prompt) for question in questions]
    sampled_rate, named_share = _sampled(model, trait, chats, samples_per_question, seed)
    return TraitScore(
        trait=trait.name,
        answers=tuple(trait.answers),
        context=context,
        chat_fingerprint=fingerprint,
        probabilities=_answer_probabilities(model, chats, _token_forms(model, trait)),
        sampled_rate=sampled_rate,
        named_share=named_share,
    )


def _token_forms(model: "TransformerBridge", trait: Trait) -> list[list[tuple[int, ...]]]:
    """For each answer, the token sequences that count as it; none begins with another.

    A reply that stands right behind a template's tag begins with no space, one that goes on in a plain text does.
    """
    tokenizer = model.tokenizer
    answers = []
    for forms in trait.answers.values():
        written = {space + form for plain in forms for form in (plain, plain.capitalize()) for space in ("", " ")}
        sequences = {tuple(tokenizer.encode(form, add_special_tokens=False)) for form in written}
        answers.append(
            sorted(s for s in sequences if not any(s != other and s[: len(other)] == other for other in sequences))
        )
    return answers


def _answer_probabilities(
    model: "TransformerBridge", chats: Sequence[Chat], answers: Sequence[Sequence[tuple[int, ...]]]
) -> Float[Tensor, "question answer"]:
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    next_token = _form_log_probabilities(model, prompts, ())  # [question d_vocab]
    probabilities = []
    for forms in answers:
        single = next_token[:, [form[0] for form in forms if len(form) == 1]].exp().sum(-1)
        longer = [form for form in forms if len(form) > 1]
        probabilities.append(sum((_form_log_probabilities(model, prompts, form).exp() for form in longer), single))
    return torch.stack(probabilities, dim=-1).float()


def _form_log_probabilities(
    model: "TransformerBridge", prompts: Sequence[list[int]], form: tuple[int, ...]
) -> Float[Tensor, "question ..."]:
    """Log-probability that the reply begins with `form`; for the empty form, of every first token."""
    batch = pad_rows(model.tokenizer, prompts, [list(form)] * len(prompts), side="left")
    logits = forward(model, batch.to(parameters_device(model)), logits_to_keep=len(form) + 1).logits
    check_numbers(model, logits)
    log_probabilities = logits.double().log_softmax(-1).cpu()
    if not form:
        return log_probabilities[:, 0]
    chosen = torch.tensor(form).expand(len(prompts), -1)[..., None]
    return log_probabilities[:, :-1].gather(-1, chosen).sum((1, 2))


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
