"""The loss that students are trained and measured on."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.samples.encoded import encode_samples, pad_encoded
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import SampleSet
from steerlens.text.batches import TokenBatch
from steerlens.token_losses import token_losses

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Objective = Callable[["TransformerBridge", TokenBatch, float], Float[Tensor, " token"]]
"""What a student minimises: from the student, a batch, and the share of the training that is over, the loss of every
completion token, row after row, in nats. It must not depend on how rows are put into batches."""


def cross_entropy(student: "TransformerBridge", batch: TokenBatch, _progress: float) -> Float[Tensor, " token"]:
    """-log q(y_t | x, y_<t): the objective that nothing has been done to."""
    return token_losses(student, batch)


def completion_losses(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, " batch"]:
    """Each row's mean negative log-likelihood over its completion tokens, in nats."""
    return row_means(cross_entropy(model, batch, 0.0), batch)


def row_means(losses: Float[Tensor, " token"], batch: TokenBatch) -> Float[Tensor, " batch"]:
    """Mean over each row's completion tokens."""
    lengths = batch.completion_mask.sum(-1)
    rows = torch.arange(len(batch), device=losses.device).repeat_interleave(lengths)
    return losses.new_zeros(len(batch)).index_add(0, rows, losses) / lengths


@checked
@torch.no_grad()
def mean_loss(model: "TransformerBridge", samples: SampleSet | AuditRows, *, batch_size: int = 128) -> float:
    """Mean negative log-likelihood of all completion tokens, in nats, under no system prompt."""
    rows = encode_samples(model, samples)
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = pad_encoded(model, rows[start : start + batch_size])
        lengths = batch.completion_mask.sum(-1)
        total += float((completion_losses(model, batch) * lengths).sum())
        count += int(lengths.sum())
    return total / count
