"""The gradient of every row's own loss at the residual stream of a model that stays as it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.memory import rows_to_differentiate
from steerlens.models.bridge import frozen, huggingface_model
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.samples.encoded import EncodedRow, batches_by_length, longest_row
from steerlens.text.batches import TokenBatch
from steerlens.text.positions import Positions
from steerlens.token_losses import token_losses

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

RowGradients = Float[Tensor, "layer row d_model"]
Reduction = Literal["mean", "sum"]


def row_gradients(
    model: "TransformerBridge",
    rows: Sequence[EncodedRow],
    layers: Sequence[int],
    *,
    positions: Positions = "last_prompt",
    reduction: Reduction = "mean",
    batch_size: int = 64,
) -> RowGradients:
    """dL_r/dh of every row's own loss at the output of each block in `layers`, summed over `positions`.

    No weight's gradient is computed, and nothing below the lowest layer is differentiated.

    Args:
        rows: token ids of each rendered prompt, and of its completion.
        reduction: L_r is the mean, or the sum, of the losses of the row's completion tokens, in nats.
        batch_size: rows at once at most; fewer where memory does not suffice.

    Returns:
        The ascent direction, float32 on the CPU, [layer row d_model].

    Raises:
        ValueError: there are no rows or layers, or a layer is out of range.
    """
    if not rows or not layers:
        raise ValueError(f"Got {len(rows)} rows and {len(layers)} layers. Give at least one of each.")
    size = min(batch_size, rows_to_differentiate(huggingface_model(model), longest_row(rows)))
    gradients = torch.empty(len(layers), len(rows), model.cfg.d_model)
    with tqdm(total=len(rows), desc="gradients", unit="row", leave=False) as progress:
        for indices, batch in batches_by_length(model, rows, size):
            gradients[:, indices] = batch_gradients(model, batch, layers, positions=positions, reduction=reduction)
            progress.update(len(indices))
    return gradients


def batch_gradients(
    model: "TransformerBridge", batch: TokenBatch, layers: Sequence[int], *, positions: Positions, reduction: Reduction
) -> RowGradients:
    """`row_gradients` of one batch. Each layer's is summed over positions as soon as it is there, and not kept whole."""
    mask, lowest = batch.position_mask(positions).float(), min(layers)
    sums: dict[int, Float[Tensor, "row d_model"]] = {}
    cut: list[Residual] = []

    def keep(layer: int):
        def add_up(gradient: Residual) -> None:
            sums[layer] = torch.einsum("rpd,rp->rd", gradient.float(), mask).cpu()

        def read(resid: Residual) -> Residual | None:
            if layer != lowest:
                resid.register_hook(add_up)
                return None
            cut.append(resid.detach().requires_grad_())
            cut[0].register_hook(add_up)
            return cut[0]

        return read

    with frozen(model), torch.enable_grad(), watch_residuals(model, {layer: keep(layer) for layer in layers}):
        losses = token_losses(model, batch)
        if reduction == "mean":
            lengths = batch.completion_mask.sum(-1)
            losses = losses / lengths.repeat_interleave(lengths)
        torch.autograd.grad(losses.sum(), cut)
    return torch.stack([sums[layer] for layer in layers])
