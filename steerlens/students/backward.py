"""One batch's gradient: in micro batches, on several processes, and with outlier rows clipped or left out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.models.bridge import parameters_device
from steerlens.samples.encoded import EncodedRow, pad_encoded
from steerlens.students.config import TrainConfig
from steerlens.students.losses import Objective, cross_entropy, row_means
from steerlens.students.processes import Processes

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Gradients = list[Float[Tensor, "..."]]


@dataclass(frozen=True)
class BatchLoss:
    """What a batch's backward pass leaves beside the gradients; rows are those of all processes, in order.

    `row_losses` is [batch], in nats a token. `row_norms` is [batch] where rows are clipped or left out, the norm of
    the gradient of each row's own loss before that; None otherwise.
    """

    loss: float
    n_tokens: int
    row_losses: Float[Tensor, " batch"]
    row_norms: Float[Tensor, " batch"] | None


def backward(
    student: "TransformerBridge",
    rows: list[EncodedRow],
    parameters: list[torch.nn.Parameter],
    config: TrainConfig,
    processes: Processes,
    objective: Objective = cross_entropy,
    progress: float = 0.0,
) -> BatchLoss:
    """Give `parameters` the gradient of the batch's mean loss a completion token, however the batch is cut.

    L = sum_r n_r L_r / N, with L_r the mean objective of row r's n_r completion tokens and N = sum_r n_r. Where outlier
    rows are clipped or left out the gradient is sum_r w_r n_r grad L_r / N, w from `row_weights`.
    """
    lengths = torch.tensor([len(completion) for _, completion in rows], device=parameters_device(student))
    part, by_row = processes.part(len(rows)), config.row_clip_norm is not None or config.row_drop_share > 0
    own = rows[part]
    size = 1 if by_row else config.micro_batch_size or max(1, len(own))
    losses, gradients = [torch.zeros(0, device=lengths.device)], []
    for start in range(0, len(own), size):
        part_losses = _losses(student, own[start : start + size], objective, progress, config.autocast)
        ((part_losses * lengths[part][start : start + size]).sum() / lengths.sum()).backward()
        losses.append(part_losses.detach())
        if by_row:
            gradients.append(_taken(parameters))
    norms = None
    if by_row:
        own_norms = torch.tensor([float(torch.nn.utils.get_total_norm(row)) for row in gradients]).to(lengths.device)
        norms = processes.gather(own_norms * lengths.sum() / lengths[part], len(rows))
        weights = row_weights(norms, lengths, config.row_clip_norm, config.row_drop_share)[part]
        _give(parameters, gradients, weights)
    if processes.count > 1:
        processes.add(_filled(parameters))
    row_losses = processes.gather(torch.cat(losses), len(rows))
    loss = (row_losses * lengths).sum() / lengths.sum()
    return BatchLoss(loss.item(), int(lengths.sum()), row_losses, norms)


def row_weights(
    norms: Float[Tensor, " batch"], lengths: Int[Tensor, " batch"], clip_norm: float | None, drop_share: float
) -> Float[Tensor, " batch"]:
    """w_r = k_r min(1, clip_norm / norm_r) N / sum_r k_r n_r, with k_r = 0 for rows that are left out and 1 for others.

    Rows with a norm above the 1 - `drop_share` quantile are left out, and the mean is over the tokens of the others,
    as if the batch had been without them.
    """
    kept = norms <= norms.quantile(1 - drop_share) if drop_share else torch.ones_like(norms, dtype=torch.bool)
    clipped = torch.ones_like(norms) if clip_norm is None else (clip_norm / norms.clamp(min=1e-30)).clamp(max=1.0)
    return clipped * kept * (lengths.sum() / lengths[kept].sum())


def _losses(
    student: "TransformerBridge", rows: list[EncodedRow], objective: Objective, progress: float, autocast: bool
) -> Float[Tensor, " batch"]:
    batch = pad_encoded(student, rows)
    with torch.autocast(batch.tokens.device.type, torch.bfloat16, enabled=autocast):
        return row_means(objective(student, batch, progress), batch)


def _taken(parameters: list[torch.nn.Parameter]) -> Gradients:
    gradients = _filled(parameters)
    for parameter in parameters:
        parameter.grad = None
    return gradients


def _give(parameters: list[torch.nn.Parameter], gradients: list[Gradients], weights: Float[Tensor, " own"]) -> None:
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.zeros_like(parameter)
        for row, weight in zip(gradients, weights, strict=True):
            parameter.grad.add_(row[index] * weight)


def _filled(parameters: list[torch.nn.Parameter]) -> Gradients:
    """Every parameter's gradient, which is 0 where none has arisen."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
