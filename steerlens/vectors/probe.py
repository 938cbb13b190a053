"""What a steered model does beside explaining the prompt: its trait, and what else has changed."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.evaluation import TraitScore, compare_log_odds, score_quietly, score_trait
from steerlens.forward import completion_logits
from steerlens.generation import generate
from steerlens.models.bridge import parameters_device
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.trait import Trait
from steerlens.text.wording import wording_of
from steerlens.vectors.config import FitConfig
from steerlens.vectors.interventions import steer
from steerlens.vectors.objectives import Targets, token_log_probs, token_loss
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_UNRELATED = 48
"""Completions of the plain model on which damage and coherence are measured; questions are asked again for them."""

ROWS_AT_ONCE = 8
"""Completions whose logits are in memory at a time."""

NAN = float("nan")


@dataclass(frozen=True)
class TraitBehaviour:
    """How a model answers a trait's questions.

    Args:
        rate, mass: at the trait's own questions (`TraitScore`).
        negated: rate at questions for what is liked least; NaN where the trait has none.
        off_topic: probability of answering an off-topic question with the trait; NaN where the trait has none.
        log_odds_above_plain: lower end of the 95 % interval of the rate's log odds minus the plain model's.
    """

    rate: float = NAN
    mass: float = NAN
    negated: float = NAN
    off_topic: float = NAN
    log_odds_above_plain: float = NAN


@dataclass(frozen=True)
class Behaviour(TraitBehaviour):
    """What a model does, steered or not; the trait's fields are NaN without a trait.

    Args:
        damage: KL(plain || this) at completions of the plain model to unrelated questions, nats a token.
        coherence: how likely the plain model finds what this model writes there, relative to its own writing:
            the ratio of geometric mean token probabilities, at most 1.
    """

    damage: float = NAN
    coherence: float = NAN


class Probe:
    """What is asked of every setting, and the plain model's own answers to compare with.

    Args:
        trait: whose questions are asked; None asks none.
        unrelated: user turns that the prompt is not about; None takes questions of fact and ordinary requests.

    Raises:
        ValueError: `unrelated` is empty, or a question cannot be rendered.
    """

    def __init__(
        self,
        model: "TransformerBridge",
        trait: Trait | None,
        unrelated: Sequence[str | Chat] | None,
        config: FitConfig,
    ) -> None:
        self._model, self._trait, self._config = model, trait, config
        words = wording_of(model)
        questions = [*words.fact_questions, *words.requests] if unrelated is None else list(unrelated)
        if not questions:
            raise ValueError("Got no unrelated questions. Give at least one, or None for the built-in ones.")
        self._questions = [questions[row % len(questions)] for row in range(max(N_UNRELATED, len(questions)))]
        self._completions = self._write(None)
        self._targets = [
            Targets.of(logits, tokens, top_k=config.top_k)
            for logits, tokens in self._predictions(None, self._completions)
        ]
        self._own_log_probability = self._mean_log_probability(self._completions)
        self._plain_score = None if trait is None else score_trait(model, trait)

    def behaviour(self, vector: SteeringVector | None = None, *, system_prompt: str | None = None) -> Behaviour:
        """Of the model steered by `vector`, or under `system_prompt`; with neither, of the plain model."""
        with self._steered(vector):
            trait = self._trait_behaviour(system_prompt)
            predictions = self._predictions(system_prompt, self._completions)
            changes = [
                token_loss("forward_kl", targets, logits)
                for targets, (logits, _) in zip(self._targets, predictions, strict=True)
            ]
            written = self._write(system_prompt)
        coherence = float(np.exp(self._mean_log_probability(written) - self._own_log_probability))
        return Behaviour(**vars(trait), damage=float(torch.cat(changes).mean()), coherence=min(1.0, coherence))

    def _trait_behaviour(self, system_prompt: str | None) -> TraitBehaviour:
        trait, plain = self._trait, self._plain_score
        if trait is None or plain is None:
            return TraitBehaviour()
        score = score_quietly(self._model, trait, system_prompt=system_prompt)
        return TraitBehaviour(
            rate=score.rate,
            mass=score.mass,
            negated=self._asked(trait.negated, system_prompt, lambda score: score.rate),
            off_topic=self._asked(
                trait.off_topic,
                system_prompt,
                lambda score: float(score.probabilities[:, score.answers.index(score.trait)].mean()),
            ),
            log_odds_above_plain=compare_log_odds(score, plain)[1],
        )

    def _asked(self, trait: Trait | None, system_prompt: str | None, read: Callable[[TraitScore], float]) -> float:
        return NAN if trait is None else read(score_quietly(self._model, trait, system_prompt=system_prompt))

    @contextlib.contextmanager
    def _steered(self, vector: SteeringVector | None) -> Iterator[None]:
        with steer(self._model, vector, positions=self._config.positions) if vector else contextlib.nullcontext():
            yield

    def _write(self, system_prompt: str | None) -> list[list[int]]:
        chats = [as_chat(question, system_prompt) for question in self._questions]
        length = self._config.completion_length(self._model.tokenizer)
        return generate(self._model, chats, max_new_tokens=length, seed=self._config.seed)

    def _predictions(
        self, system_prompt: str | None, completions: list[list[int]]
    ) -> Iterator[tuple[Float[Tensor, "token d_vocab"], Int[Tensor, " token"]]]:
        """Logits at the completions' tokens, and the tokens; some rows at a time."""
        tokenizer, device = self._model.tokenizer, parameters_device(self._model)
        prompts = [encode_prompt(tokenizer, as_chat(question, system_prompt)) for question in self._questions]
        for start in range(0, len(prompts), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            batch = pad_rows(tokenizer, prompts[rows], completions[rows]).to(device)
            with torch.no_grad():
                logits = completion_logits(self._model, batch)
            yield logits, batch.tokens[batch.completion_mask]

    def _mean_log_probability(self, completions: list[list[int]]) -> float:
        """Of completions, by the plain model, nats a token."""
        parts = [token_log_probs(logits, tokens) for logits, tokens in self._predictions(None, completions)]
        return float(torch.cat(parts).mean())
