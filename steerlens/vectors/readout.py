"""What a vector says: the tokens that it promotes, and how it shifts numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import checked
from steerlens.forward import forward
from steerlens.models.bridge import parameters_device
from steerlens.residuals.capture import mean_residuals
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.number_lists import number_tokens
from steerlens.text.positions import Positions
from steerlens.text.vocabulary import token_text, word_tokens
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MIN_NUMBERS = 10
"""With fewer number tokens than this, a tokenizer has no distribution over numbers to speak of."""

N_DIGITS = 3
"""Of the numbers that tasks ask for."""

BATCH_SIZE = 32


LogProbs = Float[Tensor, "question number"]
Written = Sequence[list[int]]
"""Which number tokens each answer has begun with."""


@dataclass(frozen=True)
class Token:
    """A token and by how much its logit, or its log-probability, changes."""

    text: str
    change: float


@checked
def promoted_tokens(
    model: "TransformerBridge", vector: SteeringVector, questions: Sequence[str | Chat], *, n: int = 10
) -> tuple[list[Token], list[Token]]:
    """Logit lens of a one-layer vector: unembed(ln(h + v)) - unembed(ln(h)), with h the mean last-prompt residual.

    The reading goes through TransformerLens' `logit_readout`; at low layers it says little, as everything does
    that skips the blocks above.

    Returns:
        The `n` tokens with the largest rise, and the `n` with the largest fall. Special tokens and rows of the vocabulary
        that stand for no token are left out.

    Raises:
        ValueError: the vector has more than one layer.
    """
    if len(vector.layers) != 1:
        raise ValueError(f"The logit lens reads one layer, the vector has {vector.layers}. Take one, vector.at(layer).")
    from transformer_lens.tools.analysis.logit_lens import logit_readout

    resid = mean_residuals(model, [as_chat(question) for question in questions], layers=vector.layers)[0]
    states = torch.stack([resid, resid + vector.directions[0]]).to(next(model.parameters()))
    before, after = logit_readout(model, states).values.float().cpu()
    tokens = word_tokens(model.tokenizer, model.cfg.d_vocab)
    change = (after - before)[tokens]
    n = min(n, len(tokens))
    return _named(model, tokens, change, change.topk(n).indices), _named(
        model, tokens, change, (-change).topk(n).indices
    )


def _named(
    model: "TransformerBridge",
    tokens: Int[Tensor, " token"],
    change: Float[Tensor, " token"],
    chosen: Int[Tensor, " n"],
) -> list[Token]:
    return [Token(token_text(model.tokenizer, int(tokens[i])), float(change[i])) for i in chosen]


@dataclass(frozen=True)
class NumberShift:
    """How the first number of a list changes, among number tokens alone: what pure number lists can carry.

    Where a tokenizer writes numbers digit by digit, it is the first digit.

    Args:
        prompt, vector: KL(shifted || plain) in nats, of the prompted and of the steered model. Where a number takes several
            tokens, it is summed over them, behind digits that the shifted model draws.
        correlation: of the two shifts in log-probability of the first token, averaged over prompts.
        raised: the first tokens that the vector raises most, by mean log-probability; digits where a tokenizer writes
            digits one by one.
    """

    prompt: float
    vector: float
    correlation: float
    raised: tuple[Token, ...]


def number_shift(
    model: "TransformerBridge",
    vector: SteeringVector,
    prompt: str,
    questions: Sequence[str | Chat],
    *,
    positions: Positions | None = None,
) -> NumberShift | None:
    """The prompt's and the vector's effect on the first number; None where the tokenizer has hardly any numbers.

    Args:
        positions: where the vector acts, as in `steer`.
    """
    tokens = [token for token in number_tokens(model.tokenizer) if token < model.cfg.d_vocab]
    if len(tokens) < MIN_NUMBERS:
        return None
    first = _FirstNumber(model, questions, tokens)

    def steered(written: Written) -> LogProbs:
        with steer(model, vector, positions=positions):
            return first.log_probs(written)

    by_prompt, prompt_kl = first.shift(lambda written: first.log_probs(written, prompt))
    by_vector, vector_kl = first.shift(steered)
    centred = [
        torch.nn.functional.normalize(shift - shift.mean(-1, keepdim=True), dim=-1) for shift in (by_prompt, by_vector)
    ]
    mean = by_vector.mean(0)
    return NumberShift(
        prompt=prompt_kl,
        vector=vector_kl,
        correlation=float((centred[0] * centred[1]).sum(-1).mean()),
        raised=tuple(Token(model.tokenizer.decode([tokens[i]]), float(mean[i])) for i in mean.topk(10).indices),
    )


class _FirstNumber:
    """The first number of the answers to some questions, token by token, among the number tokens."""

    def __init__(self, model: "TransformerBridge", questions: Sequence[str | Chat], tokens: list[int]) -> None:
        self._model, self._questions, self._tokens = model, questions, tokens
        self._texts = [text.strip() for text in model.tokenizer.batch_decode([[token] for token in tokens])]
        numbers = [str(number) for number in range(100, 1000)]
        encoded = model.tokenizer(numbers, add_special_tokens=False)["input_ids"]
        start = next(i for i, token in enumerate(encoded[0]) if token in tokens)
        self._opening, self._n_tokens = encoded[0][:start], max(map(len, encoded)) - start
        self._plain = self.log_probs([[]] * len(questions))

    @torch.no_grad()
    def log_probs(self, written: Written, prompt: str | None = None) -> LogProbs:
        """Log-probabilities of the next number token, given those that are written."""
        tokenizer, parts = self._model.tokenizer, []
        prompts = [encode_prompt(tokenizer, as_chat(question, prompt)) for question in self._questions]
        begun = [[*self._opening, *(self._tokens[i] for i in row)] for row in written]
        for start in range(0, len(prompts), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            batch = pad_rows(tokenizer, prompts[rows], begun[rows]).to(parameters_device(self._model))
            logits = forward(self._model, batch, logits_to_keep=1).logits[:, -1]
            parts.append(logits[:, self._tokens].float().cpu().log_softmax(-1))
        return torch.cat(parts)

    def shift(self, shifted: Callable[[Written], LogProbs]) -> tuple[LogProbs, float]:
        """The shift of the first token's log-probabilities, and KL(shifted || plain) of the number, by the chain rule."""
        generator, written = torch.Generator().manual_seed(0), [[] for _ in self._questions]
        first, plain, kl = shifted(written) - self._plain, self._plain, torch.zeros(len(written))
        for length in range(self._n_tokens):
            ours = shifted(written) if length else first + plain
            plain = self.log_probs(written) if length else plain
            unfinished = torch.tensor([sum(len(self._texts[i]) for i in row) < N_DIGITS for row in written])
            kl += unfinished * (ours.exp() * (ours - plain)).sum(-1)
            drawn = torch.multinomial(ours.exp(), 1, generator=generator)[:, 0].tolist()
            written = [[*row, token] for row, token in zip(written, drawn, strict=True)]
        return first, float(kl.mean())
