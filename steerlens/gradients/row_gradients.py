"""The gradient of every row's own loss at the residual stream of a model that stays as it is."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.forward import completion_logits
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.samples.encoded import EncodedRow, batches_by_length
from steerlens.text.batches import TokenBatch
from steerlens.text.positions import Positions

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

RowGradients = Float[Tensor, "layer row d_model"]


def row_gradients(
    model: "TransformerBridge",
    rows: Sequence[EncodedRow],
    layers: Sequence[int],
    *,
    positions: Positions = "last_prompt",
    reduction: Literal["mean", "sum"] = "mean",
    batch_size: int = 64,
) -> RowGradients:
    """dL_r/dh of every row's own loss at the output of each block in `layers`, summed over `positions`.

    No weight's gradient is computed, and nothing below the lowest layer is differentiated.

    Args:
        rows: token ids of each rendered prompt, and of its completion.
        reduction: L_r is the mean, or the sum, of the losses of the row's completion tokens, in nats.

    Returns:
        The ascent direction, float32 on the CPU, [layer row d_model].

    Raises:
        ValueError: there are no rows or layers, or a layer is out of range.
    """
    if not rows or not layers:
        raise ValueError(f"Got {len(rows)} rows and {len(layers)} layers. Give at least one of each.")
    batches = batches_by_length(model, rows, batch_size)
    gradients = torch.empty(len(layers), len(rows), model.cfg.d_model)
    n_batches = math.ceil(len(rows) / batch_size)
    for indices, batch in tqdm(batches, total=n_batches, desc="gradients", unit="batch", leave=False):
        gradients[:, indices] = _batch_gradients(model, batch, layers, positions, reduction)
    return gradients


def _batch_gradients(
    model: "TransformerBridge", batch: TokenBatch, layers: Sequence[int], positions: Positions, reduction: str
) -> RowGradients:
    seen: dict[int, Residual] = {}

    def keep(layer: int):
        def read(resid: Residual) -> Residual | None:
            cut = None if seen else resid.detach().requires_grad_()  # the lowest layer comes first
            seen[layer] = resid if cut is None else cut
            return cut

        return read

    lengths = batch.completion_mask.sum(-1)
    with torch.enable_grad(), watch_residuals(model, {layer: keep(layer) for layer in sorted(layers)}):
        logits = completion_logits(model, batch)
        losses = torch.nn.functional.cross_entropy(logits, batch.tokens[batch.completion_mask], reduction="none")
        if reduction == "mean":
            losses = losses / lengths.repeat_interleave(lengths)
        gradients = torch.autograd.grad(losses.sum(), [seen[layer] for layer in layers])
    mask = batch.position_mask(positions).to(gradients[0])
    return einsum(torch.stack(gradients), mask, "layer batch pos d, batch pos -> layer batch d").float().cpu()
