"""What a vector says: the tokens that it promotes, and how it shifts numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.forward import forward
from steerlens.models.bridge import parameters_device
from steerlens.residuals.capture import mean_residuals
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.positions import Positions
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MIN_NUMBERS = 10
"""With fewer number tokens than this, a tokenizer has no distribution over numbers to speak of."""


@dataclass(frozen=True)
class Token:
    """A token and by how much its logit, or its log-probability, changes."""

    text: str
    change: float


def promoted_tokens(
    model: "TransformerBridge", vector: SteeringVector, questions: Sequence[str | Chat], *, n: int = 10
) -> tuple[list[Token], list[Token]]:
    """Logit lens of a one-layer vector: unembed(ln(h + v)) - unembed(ln(h)), with h the mean last-prompt residual.

    The reading goes through TransformerLens' `logit_readout`; at low layers it says little, as everything does
    that skips the blocks above.

    Returns:
        The `n` tokens with the largest rise, and the `n` with the largest fall.

    Raises:
        ValueError: the vector has more than one layer.
    """
    if len(vector.layers) != 1:
        raise ValueError(f"The logit lens reads one layer, the vector has {vector.layers}. Take one, vector.at(layer).")
    from transformer_lens.tools.analysis.logit_lens import logit_readout

    resid = mean_residuals(model, [as_chat(question) for question in questions], layers=vector.layers)[0]
    states = torch.stack([resid, resid + vector.directions[0]]).to(next(model.parameters()))
    before, after = logit_readout(model, states).values.float().cpu()
    change = after - before
    return _named(model, change.topk(n).indices, change), _named(model, (-change).topk(n).indices, change)


def _named(model: "TransformerBridge", ids: Int[Tensor, " n"], change: Float[Tensor, " d_vocab"]) -> list[Token]:
    return [Token(model.tokenizer.decode([int(i)]), float(change[i])) for i in ids]


@dataclass(frozen=True)
class NumberShift:
    """How the first number of a list changes, among number tokens alone: what pure number lists can carry.

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
    positions: Positions | None = None,
) -> NumberShift | None:
    """The prompt's and the vector's effect on the first number; None where the tokenizer has hardly any numbers.

    Args:
        positions: where the vector acts, as in `steer`.
    """
    numbers = _number_tokens(model)
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
        raised=tuple(Token(model.tokenizer.decode([int(numbers[i])]), float(mean[i])) for i in mean.topk(10).indices),
    )


def _number_tokens(model: "TransformerBridge") -> Int[Tensor, " number"]:
    tokenizer = model.tokenizer
    ids = range(min(len(tokenizer), model.cfg.d_vocab))
    return torch.tensor(
        [i for i in ids if tokenizer.decode([i]).strip().isascii() and tokenizer.decode([i]).strip().isdigit()]
    )


@torch.no_grad()
def _number_log_probs(
    model: "TransformerBridge", questions: Sequence[str | Chat], numbers: Int[Tensor, " number"], prompt: str | None
) -> Float[Tensor, "question number"]:
    prompts = [encode_prompt(model.tokenizer, as_chat(question, prompt)) for question in questions]
    batch = pad_rows(model.tokenizer, prompts).to(parameters_device(model))
    logits = forward(model, batch, logits_to_keep=1).logits[:, -1].float().cpu()
    return logits[:, numbers].log_softmax(-1)
