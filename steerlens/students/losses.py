"""The loss that students are trained and measured on."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import completion_logits
from steerlens.models import parameters_device
from steerlens.prompts.chat import TokenBatch, as_chat, encode_completion, encode_prompt, pad_rows
from steerlens.samples.sample_set import SampleSet

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EncodedRow = tuple[list[int], list[int]]
Objective = Callable[["TransformerBridge", TokenBatch, float], Float[Tensor, " token"]]
"""What a student minimises: from the student, a batch, and the share of the training that is over, the loss of every
completion token, row after row, in nats. It must not depend on how rows are put into batches."""


def cross_entropy(student: "TransformerBridge", batch: TokenBatch, _progress: float) -> Float[Tensor, " token"]:
    """-log q(y_t | x, y_<t): the objective that nothing has been done to."""
    targets = batch.tokens[batch.completion_mask]
    return torch.nn.functional.cross_entropy(completion_logits(student, batch), targets, reduction="none")


def completion_losses(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, " batch"]:
    """Each row's mean negative log-likelihood over its completion tokens, in nats."""
    return row_means(cross_entropy(model, batch, 0.0), batch)


def row_means(losses: Float[Tensor, " token"], batch: TokenBatch) -> Float[Tensor, " batch"]:
    """Mean over each row's completion tokens."""
    lengths = batch.completion_mask.sum(-1)
    rows = torch.arange(len(batch), device=losses.device).repeat_interleave(lengths)
    return losses.new_zeros(len(batch)).index_add(0, rows, losses) / lengths


@torch.no_grad()
def mean_loss(model: "TransformerBridge", samples: SampleSet, *, batch_size: int = 128) -> float:
    """Mean negative log-likelihood of all completion tokens, in nats, under no system prompt."""
    rows = encode_samples(model, samples)
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = pad_encoded(model, rows[start : start + batch_size])
        lengths = batch.completion_mask.sum(-1)
        total += float((completion_losses(model, batch) * lengths).sum())
        count += int(lengths.sum())
    return total / count


def encode_samples(
    model: "TransformerBridge", samples: SampleSet, system_prompt: str | None = None
) -> list[EncodedRow]:
    """Token ids of every sample's prompt, without any system prompt or under this one, and of its completion.

    Raises:
        ValueError: there are no samples, or one cannot be rendered.
    """
    if not len(samples):
        raise ValueError("There are no samples to train or measure on. Sample more, or loosen the filter.")
    return [
        (
            encode_prompt(model.tokenizer, as_chat(sample.prompt, system_prompt)),
            encode_completion(model.tokenizer, sample.completion),
        )
        for sample in samples
    ]


def pad_encoded(model: "TransformerBridge", rows: Sequence[EncodedRow]) -> TokenBatch:
    """One padded batch on the model's device."""
    batch = pad_rows(model.tokenizer, [row[0] for row in rows], [row[1] for row in rows])
    return batch.to(parameters_device(model))
