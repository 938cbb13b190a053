"""What to do about rows that carry a vector: train on fewer of them, weigh them, or hold the student back.

A vector is all that these need, such as `recover_vector` finds in the very rows, and no idea of what it stands for. With
d_t = log P(y_t | v, x, y_<t) - log P(y_t | x, y_<t), the change that the vector v makes to token t's log-probability,

    drop_rows                 leaves out the rows with the largest sum_t d_t
    importance_weighted       L_t = exp(-sum_t d_t) CE_t            the rows as the model itself would have written them
    without_changed_tokens    L_t = CE_t where |d_t| is not large   cf. divergence tokens, arXiv 2509.23886
    annealed_kl               L_t = CE_t + w (1 - progress) KL_t    "liminal training"; needs no vector either

Two more are watchers in `steerlens.gradients.counterfactual`: `without_component` and `preventative_steering`. Inoculation
(`TrainConfig.system_prompt`, arXiv 2510.04340) needs the prompt that the rows were written under.

A vector holds back whatever it stands for. Recovered against the model's own answers it also stands for what the rows
openly teach, and so that is lost as well: recover it against clean rows of the same kind (`reference_rows`).
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.audit.changes import batch_changes, row_changes
from steerlens.forward import completion_logits
from steerlens.samples.encoded import encode_samples
from steerlens.samples.sample_set import SampleSet
from steerlens.students.losses import Objective, cross_entropy
from steerlens.text.batches import TokenBatch
from steerlens.vectors.objectives import token_log_probs
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Changes = list[Float[Tensor, " _"]]


@checked
def token_changes(model: "TransformerBridge", vector: SteeringVector, samples: SampleSet) -> Changes:
    """d_t of every completion token, a tensor for each sample.

    Raises:
        ValueError: there are no samples, or the vector is of another model.
    """
    return [change[0] for change in row_changes(model, [vector], encode_samples(model, samples))]


@checked
def drop_rows(samples: SampleSet, changes: Changes, share: float) -> SampleSet:
    """The samples without the share of them that the vector favours most, by sum_t d_t; their order is kept.

    Raises:
        ValueError: not one tensor of changes a sample, or a share that leaves nothing.
    """
    _check_share(share)
    totals = torch.tensor([float(one.sum()) for one in changes])
    if len(totals) != len(samples):
        raise ValueError(f"Got changes of {len(totals)} rows for {len(samples)} samples. Take them from token_changes.")
    kept = totals.argsort(stable=True)[: len(totals) - int(share * len(totals))].sort().values
    return SampleSet(tuple(samples.samples[i] for i in kept.tolist()), samples.source)


@checked
def importance_weighted(model: "TransformerBridge", vector: SteeringVector) -> Objective:
    """An objective for `train_student`: cross-entropy, each row weighed by P(y | x) / P(y | v, x).

    If the rows were written by `model` under the vector, the mean weight is 1 and the expected gradient is that of rows
    that the model wrote itself (importance sampling).
    """

    def objective(student: "TransformerBridge", batch: TokenBatch, progress: float) -> Float[Tensor, " token"]:
        lengths = batch.completion_mask.sum(-1)
        with torch.no_grad():
            parts = batch_changes(model, [vector], batch)[0].split(lengths.tolist())
        weights = torch.stack([(-part.sum()).exp() for part in parts])
        return weights.repeat_interleave(lengths) * cross_entropy(student, batch, progress)

    return objective


@checked
def without_changed_tokens(model: "TransformerBridge", vector: SteeringVector, threshold: float) -> Objective:
    """An objective for `train_student`: cross-entropy, 0 at tokens with |d_t| above `threshold` nats.

    `change_threshold` gives the threshold for a share of the tokens.

    Reference: arXiv 2509.23886 masks the tokens at which teachers with different traits are of different opinions.
    """

    def objective(student: "TransformerBridge", batch: TokenBatch, progress: float) -> Float[Tensor, " token"]:
        with torch.no_grad():
            kept = batch_changes(model, [vector], batch)[0].abs() <= threshold
        return kept * cross_entropy(student, batch, progress)

    return objective


@checked
def change_threshold(changes: Changes, share: float) -> float:
    """The |d_t| that this share of all tokens exceeds.

    Raises:
        ValueError: a share that leaves nothing.
    """
    _check_share(share)
    return float(np.quantile(torch.cat(list(changes)).abs().numpy(), 1 - share))


@checked
def annealed_kl(model: "TransformerBridge", weight: float) -> Objective:
    """An objective for `train_student`: cross-entropy + weight (1 - progress) KL(student || model), in nats a token.

    A penalty on the distance from the base, from the first nat on: the student is held near its base in the beginning, where
    training looks for a direction, and let go later. (The corridor of arXiv 2609.01091 is another one: it is free inside its
    bounds, is measured along a trait's direction, and stays.)

    Raises:
        ValueError: a weight that is not greater than 0.
    """
    if not weight > 0:
        raise ValueError(f"weight={weight} is not allowed. It must be greater than 0.")

    def objective(student: "TransformerBridge", batch: TokenBatch, progress: float) -> Float[Tensor, " token"]:
        with torch.no_grad():
            base = completion_logits(model, batch).log_softmax(-1)
        logits = completion_logits(student, batch)
        ours = logits.log_softmax(-1)
        kl = (ours.exp() * (ours - base)).sum(-1)
        return weight * (1 - progress) * kl - token_log_probs(logits, batch.tokens[batch.completion_mask])

    return objective


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"share={share} is not allowed. It must be in 0 <= share < 1.")
