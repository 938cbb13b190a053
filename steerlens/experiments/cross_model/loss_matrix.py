"""Whose vector predicts whose data: what a vector takes off the loss of rows, next to its nulls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.forward import completion_logits
from steerlens.samples.encoded import encode_samples, pad_encoded
from steerlens.samples.sample_set import SampleSet
from steerlens.students.losses import completion_losses, row_means
from steerlens.text.batches import TokenBatch
from steerlens.vectors.interventions import steer
from steerlens.vectors.objectives import positions_among
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_RESAMPLES = 2000
STRENGTHS = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class LossReduction:
    """What a vector takes off the loss of a teacher's rows, more than off the control's, in nats a token.

    `taught` and `control` are the mean reductions themselves; `low` and `high` bound their difference `value` (95 %,
    bootstrap over rows). `p_value` is that of the difference when the rows' labels are permuted.
    """

    taught: float
    control: float
    value: float
    low: float
    high: float
    p_value: float


@torch.no_grad()
def loss_reductions(
    model: "TransformerBridge",
    vector: SteeringVector,
    samples: SampleSet,
    *,
    among: Int[Tensor, " choice"] | None = None,
    batch_size: int = 128,
) -> Float[Tensor, " row"]:
    """NLL(unsteered) - NLL(steered) of every row, in nats a completion token: positive where the vector predicts it.

    Args:
        among: sorted tokens between which the model is asked to choose, such as those of lists where the rows are filtered:
            a vector that also promotes words would otherwise pay for words that the filter took out. None is all.

    Raises:
        ValueError: a completion has a token that is not in `among`.
    """
    rows = encode_samples(model, samples)
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = pad_encoded(model, rows[start : start + batch_size])
        plain = _row_losses(model, batch, among)
        with steer(model, vector):
            parts.append((plain - _row_losses(model, batch, among)).cpu())
    return torch.cat(parts)


def _row_losses(
    model: "TransformerBridge", batch: TokenBatch, among: Int[Tensor, " choice"] | None
) -> Float[Tensor, " row"]:
    if among is None:
        return completion_losses(model, batch)
    targets = positions_among(batch.tokens[batch.completion_mask], among)
    logits = completion_logits(model, batch)[:, among]
    return row_means(torch.nn.functional.cross_entropy(logits, targets, reduction="none"), batch)


def compare(taught: Float[Tensor, " row"], control: Float[Tensor, " row"], *, seed: int = 0) -> LossReduction:
    """The difference of two groups of rows, with its interval and permutation p-value (one-sided)."""
    ours, theirs = taught.double().numpy(), control.double().numpy()
    rng, both = np.random.default_rng(seed), np.concatenate([ours, theirs])
    value = float(ours.mean() - theirs.mean())
    draws, permuted = [], []
    for _ in range(N_RESAMPLES):
        a, b = (group[rng.integers(0, len(group), len(group))] for group in (ours, theirs))
        draws.append(a.mean() - b.mean())
        mixed = rng.permutation(both)
        permuted.append(mixed[: len(ours)].mean() - mixed[len(ours) :].mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    p_value = (1 + sum(np.array(permuted) >= value - 1e-12)) / (1 + N_RESAMPLES)
    return LossReduction(float(ours.mean()), float(theirs.mean()), value, float(low), float(high), float(p_value))


def at_best_strength(
    model: "TransformerBridge",
    vector: SteeringVector,
    samples: SampleSet,
    *,
    among: Int[Tensor, " choice"] | None = None,
) -> tuple[float, SteeringVector]:
    """The strength that takes most off the loss of these rows, which are for choosing alone, and the vector times it."""

    def reduction(strength: float) -> float:
        return float(loss_reductions(model, strength * vector, samples, among=among).mean())

    best = max(STRENGTHS, key=reduction)
    return best, best * vector


def random_reduction(
    model: "TransformerBridge",
    vectors: Sequence[SteeringVector],
    taught: SampleSet,
    control: SampleSet,
    *,
    among: Int[Tensor, " choice"] | None = None,
) -> float:
    """The largest difference between taught and control rows that any of the vectors makes."""

    def mean(vector: SteeringVector, samples: SampleSet) -> float:
        return float(loss_reductions(model, vector, samples, among=among).mean())

    return max(mean(vector, taught) - mean(vector, control) for vector in vectors)
