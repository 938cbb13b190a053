"""What a model predicts under a condition (a system prompt, a vector, both or neither), compared over given answers."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import checked
from steerlens.checks import WrongInput, a_text, shown
from steerlens.forward import completion_logits, forward
from steerlens.models.bridge import parameters_device
from steerlens.samples.encoded import encode_samples, pad_encoded
from steerlens.samples.sample_set import SampleSet
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, encode_prompt, end_of_turn
from steerlens.vectors.interventions import Mode, steer
from steerlens.vectors.objectives import positions_among
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_IN_LISTS = re.compile(r"[\d\s,;.()\[\]]+", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """How a model is asked: under a system prompt, steered by a vector, both, or neither (the plain model)."""

    prompt: str | None = None
    vector: SteeringVector | None = None
    mode: Mode = "add"

    def __post_init__(self) -> None:
        if self.prompt is not None:
            a_text(self.prompt, "prompt")
        if not isinstance(self.vector, SteeringVector | None):
            raise WrongInput(f"vector must be a SteeringVector or None, got {shown(self.vector)}.")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode={self.mode!r} is not known. Allowed: {', '.join(get_args(Mode))}.")

    def steering(self, model: "TransformerBridge") -> contextlib.AbstractContextManager[None]:
        """The model steered by the vector inside a `with`; the prompt is the caller's to give."""
        return contextlib.nullcontext() if self.vector is None else steer(model, self.vector, mode=self.mode)


PLAIN = Condition()


@checked
def list_tokens(model: "TransformerBridge") -> Int[Tensor, " token"]:
    """The tokens that a pure number list is written with, in ascending order: digits, separators, brackets, the turn's end.

    A student of filtered lists sees no others, so that they are what a prompt can act on.
    """
    tokenizer = model.tokenizer
    ids = [i for i in range(min(len(tokenizer), model.cfg.d_vocab)) if _IN_LISTS.fullmatch(tokenizer.decode([i]))]
    return torch.tensor(sorted({*ids, end_of_turn(tokenizer)} - {None}))


@checked
@torch.no_grad()
def row_losses(
    model: "TransformerBridge",
    samples: SampleSet,
    condition: Condition = PLAIN,
    *,
    among: Int[Tensor, " token"] | None = None,
    batch_size: int = 64,
) -> Float[Tensor, " row"]:
    """Each row's mean negative log-likelihood under a condition, in nats a completion token.

    Args:
        among: sorted tokens between which the model is asked to choose, such as `list_tokens`; None is all.

    Raises:
        ValueError: there are no samples, or a completion has a token that is not in `among`.
    """
    means = []
    for log_probs, targets, lengths in _predictions(model, samples, condition, among, batch_size):
        chosen = -log_probs.gather(-1, targets[:, None])[:, 0]
        means += [float(row.mean()) for row in chosen.split(lengths)]
    return torch.tensor(means)


@checked
@torch.no_grad()
def row_kl(
    model: "TransformerBridge",
    samples: SampleSet,
    reference: Condition,
    other: Condition = PLAIN,
    *,
    among: Int[Tensor, " token"] | None = None,
    batch_size: int = 64,
) -> Float[Tensor, " row"]:
    """Each row's KL(reference || other), summed over its completion tokens, in nats.

    With the prompt as the reference, 1 - sum KL(prompt || vector) / sum KL(prompt || plain) is how much of the prompt the
    vector explains on these rows.

    Args:
        among: as in `row_losses`.
    """
    pairs = (_predictions(model, samples, one, among, batch_size) for one in (reference, other))
    sums = []
    for (ours, _, lengths), (theirs, _, _) in zip(*pairs, strict=True):
        distance = (ours.exp() * (ours - theirs)).sum(-1)
        sums += [float(row.sum()) for row in distance.split(lengths)]
    return torch.tensor(sums)


def _predictions(
    model: "TransformerBridge",
    samples: SampleSet,
    condition: Condition,
    among: Int[Tensor, " choice"] | None,
    batch_size: int,
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """For every batch: log-probabilities [token choice] and targets [token], row after row, and each row's length."""
    rows = encode_samples(model, samples, condition.prompt)
    for start in range(0, len(rows), batch_size):
        batch = pad_encoded(model, rows[start : start + batch_size])
        targets, lengths = batch.tokens[batch.completion_mask], batch.completion_mask.sum(-1).tolist()
        with condition.steering(model):
            logits = completion_logits(model, batch)
        if among is not None:
            targets, logits = positions_among(targets, among), logits[:, among]
        yield logits.float().log_softmax(-1), targets, lengths


@checked
@torch.no_grad()
def next_token_log_probs(
    model: "TransformerBridge", chats: Sequence[Chat], *, batch_size: int = 64
) -> Float[Tensor, "chat d_vocab"]:
    """Log-probabilities of the first token of each chat's answer, float32 on the CPU."""
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    parts = []
    for start in range(0, len(prompts), batch_size):
        batch = pad_rows(model.tokenizer, prompts[start : start + batch_size]).to(parameters_device(model))
        parts.append(forward(model, batch, logits_to_keep=1).logits[:, -1].float().log_softmax(-1).cpu())
    return torch.cat(parts)


@checked
def tokens_without(model: "TransformerBridge", words: Sequence[str]) -> Int[Tensor, " token"]:
    """All tokens, in ascending order, but those that these words are written with, however they are capitalised or spaced."""
    forms = {space + form for word in words for form in (word, word.capitalize(), word.upper()) for space in ("", " ")}
    taken = {token for form in forms for token in model.tokenizer.encode(form, add_special_tokens=False)}
    return torch.tensor([token for token in range(model.cfg.d_vocab) if token not in taken])
