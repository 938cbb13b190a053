"""How good a fitted vector is: everything that is reported, on held-out rows, next to its controls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.stats import bootstrap_interval, ratio_of_sums
from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import descend
from steerlens.vectors.fit_data import FitData, FitRows
from steerlens.vectors.layer_fits import Fit
from steerlens.vectors.resumed import Directions, ResumedRows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_RANDOM = 5


def heldout_metrics(
    model: "TransformerBridge", data: FitData, fits: Sequence[Fit], best: Fit, config: FitConfig
) -> dict:
    """Everything that is reported of `best`; `fits` are the layers that it was compared with, itself among them."""
    ours = ResumedRows(model, best.layers, data.heldout, config.positions)
    plain, steered = ours.row_kl(ours.nothing), ours.row_kl(best.directions)
    explained, low, high = explained_with_interval(steered[:, 0], plain[:, 0], ours.questions, seed=config.seed)
    baseline = max(fits, key=lambda fit: fit.mean_difference_validation)
    theirs = ResumedRows(model, baseline.layers, data.heldout, config.positions)

    def share(rows: ResumedRows, directions: Directions) -> float:
        return 1 - float(rows.row_kl(directions)[:, 0].sum() / plain[:, 0].sum())

    cosine = torch.nn.functional.cosine_similarity(best.directions, best.mean_difference, dim=-1)
    n_compared = max(1, int(best.mean_difference.any(-1).sum()))
    norms = best.directions.norm(dim=-1) / (ours.scales * best.directions.shape[1] ** 0.5)
    metrics = {
        "kl_explained": explained,
        "kl_explained_low": low,
        "kl_explained_high": high,
        "kl_prompt": float(plain[:, 0].sum() / plain[:, 1].sum()),
        **_prediction_metrics(model, ours, data.heldout, best.directions),
        "kl_explained_mean_difference": share(theirs, baseline.mean_difference),
        "layers_mean_difference": [
            layer
            for layer, norm in zip(baseline.layers, baseline.mean_difference.norm(dim=-1), strict=True)
            if norm > 0
        ],
        "kl_explained_random": float(
            np.mean([share(ours, one) for one in random_directions(best.directions, N_RANDOM, seed=config.seed)])
        ),
        "kl_explained_shuffled": share(ours, _shuffled_control(model, data, best, config)),
        "cosine_mean_difference": float(cosine.sum() / n_compared),
        "relative_norm": float(norms.mean()),
        "coarsening": data.coarsening,
    }
    if all(len(fit.layers) == 1 for fit in fits):
        metrics["by_layer"] = {
            str(fit.layers[0]): {
                "kl_explained": fit.validation,
                "kl_explained_mean_difference": fit.mean_difference_validation,
            }
            for fit in fits
        }
    return metrics


def explained_with_interval(
    steered: Float[Tensor, " row"], plain: Float[Tensor, " row"], questions: Sequence[int], *, seed: int
) -> tuple[float, float, float]:
    """1 - sum(steered) / sum(plain), and its 95 % bootstrap interval over questions."""
    index = np.unique(questions, return_inverse=True)[1]
    ours, base = (np.bincount(index, kl.double().numpy()) for kl in (steered, plain))
    found = bootstrap_interval(lambda ours, base, axis=-1: 1 - ratio_of_sums(ours, base, axis), ours, base, seed=seed)
    return found.value, found.low, found.high


def random_directions(like: Directions, n: int = 1, *, seed: int) -> list[Directions]:
    """`n` times a Gaussian direction at each layer, with the norms of `like`."""
    noise = torch.randn(n, *like.shape, generator=torch.Generator().manual_seed(seed))
    return list(torch.nn.functional.normalize(noise, dim=-1) * like.norm(dim=-1, keepdim=True))


@torch.no_grad()
def _prediction_metrics(
    model: "TransformerBridge", resumed: ResumedRows, rows: Sequence[FitRows], directions: Directions
) -> dict[str, float]:
    """How far the steered predictions agree with the prompted ones, token by token."""
    agree, agree_plain, correlations = [], [], []
    for index, one in enumerate(rows):
        logits, plain_logits = (resumed.logits(index, added) for added in (directions, resumed.nothing))
        agree.append(logits.argmax(-1) == one.targets.likeliest)
        agree_plain.append(plain_logits.argmax(-1) == one.targets.likeliest)
        steered, plain = one.targets.of_prediction(logits), one.targets.of_prediction(plain_logits)
        shifts = torch.stack([steered - plain, one.targets.log_probs - plain])
        shifts = torch.nn.functional.normalize(shifts - shifts.mean(-1, keepdim=True), dim=-1)
        correlations.append((shifts[0] * shifts[1]).sum(-1))
    return {
        "top1_agreement": float(torch.cat(agree).float().mean()),
        "top1_agreement_plain": float(torch.cat(agree_plain).float().mean()),
        "shift_correlation": float(torch.cat(correlations).mean()),
    }


def _shuffled_control(model: "TransformerBridge", data: FitData, best: Fit, config: FitConfig) -> Directions:
    """The same fit at the same layers, with each token's target taken from another token of the batch."""
    generator = torch.Generator().manual_seed(config.seed)

    def shuffled(part: tuple[FitRows, ...]) -> ResumedRows:
        rows = []
        for one in part:
            order = torch.randperm(len(one.targets.sampled), generator=generator)
            rows.append(replace(one, targets=one.targets.take(order.to(one.targets.sampled.device))))
        return ResumedRows(model, best.layers, rows, config.positions)

    train, validation = shuffled(data.train), shuffled(data.validation)
    directions, _ = descend(train, validation, train.nothing, config, label="fit control")
    return directions
