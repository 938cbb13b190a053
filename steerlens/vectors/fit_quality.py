"""How good a fitted vector is: everything that is reported, on held-out rows, next to its controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.stats import bootstrap_interval, ratio_of_sums
from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import ROUND, Descent
from steerlens.vectors.fit_data import FitData, FitRows
from steerlens.vectors.layer_fits import Fit, at_best_strength
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.objectives import token_loss
from steerlens.vectors.resumed import Directions, ResumedRows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_RANDOM = 3

CONTROL_STEPS = ROUND
"""The most steps of the control that is fitted to shuffled targets."""


def heldout_metrics(
    model: "TransformerBridge",
    data: FitData,
    fits: Sequence[Fit],
    best: Fit,
    config: FitConfig,
    *,
    on_step: Callable[[], object] = lambda: None,
) -> FitMetrics:
    """Everything that is reported of `best`; `fits` are the layers that it was compared with, itself among them."""
    ours = ResumedRows(model, best.layers, data.heldout, config.positions)
    judged = judge(ours, data.heldout, best.directions)
    explained, low, high = judged.explained(seed=config.seed)
    plain = float(judged.plain.sum())
    baseline = max(fits, key=lambda fit: fit.mean_difference_validation)
    theirs = ours
    if baseline.layers != best.layers:
        theirs = ResumedRows(model, baseline.layers, data.heldout, config.positions)

    def share(rows: ResumedRows, directions: Directions) -> float:
        return 1 - float(rows.row_kl(directions)[:, 0].sum()) / plain

    cosine = torch.nn.functional.cosine_similarity(best.directions, best.mean_difference, dim=-1)
    n_compared = max(1, int(best.mean_difference.any(-1).sum()))
    norms = best.directions.norm(dim=-1) / (ours.scales * best.directions.shape[1] ** 0.5)
    random = random_directions(best.directions, N_RANDOM, seed=config.seed)
    return FitMetrics(
        kl_explained=explained,
        kl_explained_low=low,
        kl_explained_high=high,
        kl_prompt=plain / judged.n_tokens,
        kl_explained_mean_difference=share(theirs, baseline.mean_difference),
        kl_explained_random=float(np.mean([share(ours, one) for one in random])),
        kl_explained_shuffled=share(ours, _shuffled_control(model, data, best, config, on_step)),
        layers_mean_difference=_moved(baseline),
        top1_agreement=judged.agreement,
        top1_agreement_plain=judged.agreement_plain,
        shift_correlation=judged.shift_correlation,
        cosine_mean_difference=float(cosine.sum() / n_compared),
        relative_norm=float(norms.mean()),
        coarsening=data.coarsening,
        converged=best.converged,
        by_layer=_by_layer(fits),
    )


def _moved(baseline: Fit) -> tuple[int, ...]:
    """The layers at which its mean difference is not zero."""
    norms = baseline.mean_difference.norm(dim=-1)
    return tuple(layer for layer, norm in zip(baseline.layers, norms, strict=True) if norm > 0)


def _by_layer(fits: Sequence[Fit]) -> dict[int, LayerMetrics] | None:
    """The fits by layer, where each is of one layer."""
    if any(len(fit.layers) > 1 for fit in fits):
        return None
    fits = sorted(fits, key=lambda fit: fit.layers)
    return {fit.layers[0]: LayerMetrics(fit.validation, fit.mean_difference_validation) for fit in fits}


@dataclass(frozen=True)
class Judged:
    """How far a steered model predicts as the prompted one does, on rows that no choice has seen.

    `steered` and `plain` [row] are sums of KL from the prompted model over a row's tokens, in nats; `questions` number
    the rows' questions. The last three are means over tokens: how often the likeliest token is the prompted model's, with
    and without the vector, and the correlation of the changes in log-probability.
    """

    steered: Float[Tensor, " row"]
    plain: Float[Tensor, " row"]
    questions: tuple[int, ...]
    n_tokens: int
    agreement: float
    agreement_plain: float
    shift_correlation: float

    def explained(self, *, seed: int) -> tuple[float, float, float]:
        """kl_explained, with its 95 % bootstrap interval over questions."""
        return explained_with_interval(self.steered, self.plain, self.questions, seed=seed)


@torch.no_grad()
def judge(resumed: ResumedRows, rows: Sequence[FitRows], directions: Directions) -> Judged:
    """Compare steered, plain and prompted predictions, token by token, in one pass over the rows."""
    sums, by_token, questions = [], [], []
    for index, one in enumerate(rows):
        logits, plain_logits = (resumed.logits(index, added) for added in (directions, resumed.nothing))
        kl = torch.stack([token_loss("forward_kl", one.targets, each) for each in (logits, plain_logits)], dim=-1).cpu()
        sums.append(torch.zeros(len(one.batch), 2).index_add(0, one.row_of_token, kl))
        steered, plain = one.targets.of_prediction(logits), one.targets.of_prediction(plain_logits)
        shifts = torch.stack([steered - plain, one.targets.log_probs - plain])
        shifts = torch.nn.functional.normalize(shifts - shifts.mean(-1, keepdim=True), dim=-1)
        agree = [each.argmax(-1) == one.targets.likeliest for each in (logits, plain_logits)]
        by_token.append(torch.stack([agree[0].float(), agree[1].float(), (shifts[0] * shifts[1]).sum(-1)]).cpu())
        questions += one.questions
    steered, plain = torch.cat(sums).unbind(-1)
    each = torch.cat(by_token, dim=1)
    return Judged(steered, plain, tuple(questions), each.shape[1], *each.mean(-1).tolist())


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


def _shuffled_control(
    model: "TransformerBridge", data: FitData, best: Fit, config: FitConfig, on_step: Callable[[], object]
) -> Directions:
    """A fit at the same layers, with each token's target taken from another token of the batch; at its best strength.

    Without that it would do harm many times larger than the prompt's effect, which says nothing.
    """
    generator = torch.Generator().manual_seed(config.seed)

    def shuffled(part: tuple[FitRows, ...]) -> ResumedRows:
        rows = []
        for one in part:
            order = torch.randperm(len(one.targets.sampled), generator=generator)
            rows.append(replace(one, targets=one.targets.take(order.to(one.targets.sampled.device))))
        return ResumedRows(model, best.layers, rows, config.positions)

    train, validation = shuffled(data.train), shuffled(data.validation)
    config = replace(config, steps=min(config.steps, CONTROL_STEPS))
    descent = Descent(train, validation, train.nothing, config, explained=0.0, units=best.units).to_its_end(on_step)
    true = ResumedRows(model, best.layers, data.validation, config.positions)
    scaled, left = at_best_strength(true, descent.directions)
    return scaled if left < true.plain_kl else true.nothing
