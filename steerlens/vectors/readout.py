"""What a vector says: the tokens that it promotes, and how it shifts numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import checked
from steerlens.forward import run_prompts
from steerlens.residuals.capture import mean_residuals
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.positions import Positions
from steerlens.text.vocabulary import number_tokens, token_text, word_tokens
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MIN_NUMBERS = 10
"""With fewer number tokens than this, a tokenizer has no distribution over numbers to speak of."""


ROWS_AT_ONCE = 32


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
        prompt, vector: KL(shifted || plain) in nats, of the prompted and of the steered model.
        correlation: of the two shifts in log-probability over numbers, averaged over prompts.
        raised: the numbers that the vector raises most, by mean log-probability.
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
    positions: Positions = "all",
) -> NumberShift | None:
    """The prompt's and the vector's effect on the first number; None where the tokenizer has hardly any numbers.

    Args:
        positions: where the vector acts, as in `steer`; give those that it was fitted at.
    """
    numbers = number_tokens(model.tokenizer, model.cfg.d_vocab)
    if len(numbers) < MIN_NUMBERS:
        return None
    plain, prompted = (_number_log_probs(model, questions, numbers, text) for text in (None, prompt))
    with steer(model, vector, positions=positions):
        steered = _number_log_probs(model, questions, numbers, None)
    by_prompt, by_vector = prompted - plain, steered - plain
    centred = [
        torch.nn.functional.normalize(shift - shift.mean(-1, keepdim=True), dim=-1) for shift in (by_prompt, by_vector)
    ]
    mean = by_vector.mean(0)
    return NumberShift(
        prompt=float((prompted.exp() * by_prompt).sum(-1).mean()),
        vector=float((steered.exp() * by_vector).sum(-1).mean()),
        correlation=float((centred[0] * centred[1]).sum(-1).mean()),
        raised=tuple(_named(model, numbers, mean, mean.topk(MIN_NUMBERS).indices)),
    )


@torch.no_grad()
def _number_log_probs(
    model: "TransformerBridge", questions: Sequence[str | Chat], numbers: Int[Tensor, " number"], prompt: str | None
) -> Float[Tensor, "question number"]:
    prompts = [encode_prompt(model.tokenizer, as_chat(question, prompt)) for question in questions]
    logits = [
        run_prompts(model, prompts[start : start + ROWS_AT_ONCE])[1].logits[:, -1][:, numbers].float().cpu()
        for start in range(0, len(prompts), ROWS_AT_ONCE)
    ]
    return torch.cat(logits).log_softmax(-1)
