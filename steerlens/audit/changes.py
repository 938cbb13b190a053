"""What vectors change in the log-probability of rows, token by token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import completion_logits
from steerlens.residuals.stream import Residual, resume_after, watch_residuals
from steerlens.samples.encoded import EncodedRow, batches_by_length
from steerlens.text.batches import TokenBatch
from steerlens.vectors.interventions import steer
from steerlens.vectors.objectives import token_log_probs
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

RowChanges = list[Float[Tensor, "vector _"]]


@torch.no_grad()
def row_changes(
    model: "TransformerBridge", vectors: Sequence[SteeringVector], rows: Sequence[EncodedRow], *, batch_size: int = 64
) -> RowChanges:
    """log P(y_t | v, x, y_<t) - log P(y_t | x, y_<t) of every row's completion tokens, under each of the vectors.

    Raises:
        ValueError: a vector is of another model.
    """
    changes: RowChanges = [torch.zeros(len(vectors), 0)] * len(rows)
    for indices, batch in batches_by_length(model, rows, batch_size):
        parts = batch_changes(model, vectors, batch).cpu().split(batch.completion_mask.sum(-1).tolist(), dim=1)
        for index, part in zip(indices, parts, strict=True):
            changes[index] = part
    return changes


def batch_changes(
    model: "TransformerBridge", vectors: Sequence[SteeringVector], batch: TokenBatch
) -> Float[Tensor, "vector token"]:
    """The same of a batch's completion tokens, row after row. Blocks below all vectors run once for all of them."""
    tokens = batch.tokens[batch.completion_mask]
    lowest, kept = min(min(vector.layers) for vector in vectors), list[Residual]()
    with watch_residuals(model, {lowest: kept.append}, first=True):
        plain, steered = token_log_probs(completion_logits(model, batch), tokens), []
    for vector in vectors:
        with resume_after(model, lowest, lambda: kept[0]), steer(model, vector):
            steered.append(token_log_probs(completion_logits(model, batch), tokens) - plain)
    return torch.stack(steered)
