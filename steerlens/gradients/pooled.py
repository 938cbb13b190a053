"""Is the vector in the data's mean gradient? The pooled difference of two data sets, over the number of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.forward import completion_logits
from steerlens.models import parameters_device
from steerlens.prompts.chat import TokenBatch, as_chat, encode_completion, encode_prompt, pad_rows
from steerlens.prompts.positions import Positions
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.samples.sample_set import SampleSet
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Draws = Float[Tensor, "subset size layer"]
RowGradients = Float[Tensor, "layer row d_model"]


@dataclass(frozen=True)
class PooledCosine:
    """cos(d, v) for d the mean descent direction of teacher rows minus that of control rows.

    Each of the three is [subset size layer]: random subsets of `sizes[i]` rows of either kind, drawn with replacement.
    `shuffled` has teacher and control rows relabelled at random, `random` has Gaussian directions in place of v.
    """

    layers: tuple[int, ...]
    sizes: tuple[int, ...]
    observed: Draws
    shuffled: Draws
    random: Draws

    @staticmethod
    def interval(draws: Draws, level: float = 0.95) -> tuple[Float[Tensor, "size layer"], Float[Tensor, "size layer"]]:
        """The central `level` of the subsets' cosines."""
        tail = (1 - level) / 2
        return draws.quantile(tail, dim=0), draws.quantile(1 - tail, dim=0)


def pooled_difference_cosine(
    model: "TransformerBridge",
    teacher: SampleSet,
    control: SampleSet,
    vector: SteeringVector,
    *,
    sizes: Sequence[int] = tuple(2**k for k in range(13)),
    n_subsets: int = 200,
    positions: Positions = "last_prompt",
    seed: int = 0,
) -> PooledCosine:
    """cos(mean_N (-g_teacher) - mean_N (-g_control), v) of a fixed model, for every number N of rows.

    g_r = dL_r/dh, summed over `positions`, is the gradient of row r's own loss (nats, mean over its completion tokens).
    Positive means that descent on teacher rows, more than on control rows, points along v. One row's gradient is
    nearly all noise; the cosine grows with N where the data carry the vector. Sizes above the number of rows of
    either set are left out.

    Reference: arXiv 2606.00995, figure 7a, which plots cos(g_clean - g_teacher, v) with g the ascent direction.

    Raises:
        ValueError: the vector belongs to another model; a set is empty; no size is in 1..rows.
    """
    vector.check_model(model)
    one, other = (-row_gradients(model, rows, vector.layers, positions=positions) for rows in (teacher, control))
    rows = min(len(teacher), len(control))
    kept = tuple(size for size in sizes if 1 <= size <= rows)
    if not kept:
        raise ValueError(f"sizes={tuple(sizes)} has none in 1..{rows}, the number of rows. Give smaller sizes.")
    return compare_pooled(one, other, vector, kept, n_subsets=n_subsets, seed=seed)


def compare_pooled(
    teacher: RowGradients,
    control: Float[Tensor, "layer control d_model"],
    vector: SteeringVector,
    sizes: tuple[int, ...],
    *,
    n_subsets: int,
    seed: int,
) -> PooledCosine:
    """The cosines of `pooled_difference_cosine`, from descent directions that were captured already."""
    rng, pooled = np.random.default_rng(seed), torch.cat([teacher, control], dim=1)
    n_teacher, v = teacher.shape[1], vector.unit
    gaussian = torch.from_numpy(rng.standard_normal((n_subsets, *v.shape))).float()
    draws: dict[str, list[Tensor]] = {"observed": [], "shuffled": [], "random": []}
    for size in sizes:
        for shuffle in (False, True):
            weights = _subset_weights(rng, n_teacher, pooled.shape[1] - n_teacher, size, n_subsets, shuffle)
            difference = einsum(weights, pooled, "subset row, layer row d_model -> subset layer d_model")
            draws["shuffled" if shuffle else "observed"].append(torch.cosine_similarity(difference, v, dim=-1))
            if not shuffle:
                draws["random"].append(torch.cosine_similarity(difference, gaussian, dim=-1))
    return PooledCosine(vector.layers, sizes, **{name: torch.stack(parts, dim=1) for name, parts in draws.items()})


def row_gradients(
    model: "TransformerBridge",
    samples: SampleSet,
    layers: Sequence[int],
    *,
    positions: Positions = "last_prompt",
    batch_size: int = 64,
) -> RowGradients:
    """dL_r/dh of every row's own loss at the output of each block in `layers`, summed over `positions`.

    No weight's gradient is computed, and nothing below the lowest layer is differentiated.

    Returns:
        The ascent direction, float32 on the CPU, [layer row d_model].

    Raises:
        ValueError: there are no samples or layers, a layer is out of range, or a sample cannot be rendered.
    """
    if not len(samples) or not layers:
        raise ValueError(f"Got {len(samples)} samples and {len(layers)} layers. Give at least one of each.")
    encoded = [
        (encode_prompt(model.tokenizer, as_chat(s.prompt)), encode_completion(model.tokenizer, s.completion))
        for s in samples
    ]
    starts, chunks = range(0, len(encoded), batch_size), []
    for start in tqdm(starts, desc="gradients", unit="batch", leave=False, disable=len(starts) < 20):
        batch = pad_rows(model.tokenizer, *zip(*encoded[start : start + batch_size], strict=True))
        chunks.append(_batch_gradients(model, batch.to(parameters_device(model)), layers, positions))
    return torch.cat(chunks, dim=1)


def _batch_gradients(
    model: "TransformerBridge", batch: TokenBatch, layers: Sequence[int], positions: Positions
) -> RowGradients:
    seen: dict[int, Residual] = {}

    def keep(layer: int):
        def read(resid: Residual) -> Residual | None:
            cut = None if seen else resid.detach().requires_grad_()  # the lowest layer comes first
            seen[layer] = resid if cut is None else cut
            return cut

        return read

    lengths = batch.completion_mask.sum(-1)
    with torch.enable_grad(), watch_residuals(model, {layer: keep(layer) for layer in layers}):
        logits = completion_logits(model, batch)
        losses = torch.nn.functional.cross_entropy(logits, batch.tokens[batch.completion_mask], reduction="none")
        total = (losses / lengths.repeat_interleave(lengths)).sum()
        gradients = torch.autograd.grad(total, [seen[layer] for layer in layers])
    mask = batch.position_mask(positions).to(gradients[0])
    return einsum(torch.stack(gradients), mask, "layer batch pos d, batch pos -> layer batch d").float().cpu()


def _subset_weights(
    rng: np.random.Generator, n_teacher: int, n_control: int, size: int, n_subsets: int, shuffle: bool
) -> Float[Tensor, "subset row"]:
    """Each subset's weights on all rows: +1/size a draw of a teacher row, -1/size a draw of a control row."""
    one, other = (rng.multinomial(size, np.full(n, 1 / n), n_subsets) for n in (n_teacher, n_control))
    weights = np.concatenate([one, -other], axis=1) / size
    return torch.from_numpy(rng.permuted(weights, axis=1) if shuffle else weights).float()
