"""Adam on the vector alone, with the best of it on validation rows kept."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.vectors.config import FitConfig
from steerlens.vectors.resumed import Directions, ResumedRows

EVALUATE_EVERY = 20
PROGRESS = 2e-4
"""A gain in kl_explained on validation rows that counts as progress."""


def descend(
    train: ResumedRows, validation: ResumedRows, start: Directions, config: FitConfig, *, label: str
) -> tuple[Directions, float]:
    """Minimise the objective from `start`.

    Ends after `config.steps`, or when `config.patience` steps have gone by without progress.

    Returns:
        The best directions on validation rows, `start` among them, and their kl_explained there.
    """
    plain = validation.mean_kl(validation.nothing)
    best, best_kl = start.clone(), validation.mean_kl(start)
    milestone, milestone_step = best_kl, 0
    parameters, directions = _parametrize(start, train.scales[:, None], config)
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=config.steps)
    progress = tqdm(_batches(len(train), config), total=config.steps, desc=label, unit="step", leave=False)
    for step, index in enumerate(progress, 1):
        optimizer.zero_grad()
        loss = train.loss(index, directions(), config.objective).mean()
        if config.l2:
            loss = loss + config.l2 * (directions() / train.scales[:, None]).square().mean(-1).sum().to(loss)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % EVALUATE_EVERY and step != config.steps:
            continue
        kl = validation.mean_kl(directions().detach())
        if kl < best_kl:
            best, best_kl = directions().detach().clone(), kl
        progress.set_postfix(kl_explained=f"{1 - best_kl / plain:.3f}", refresh=False)
        if best_kl < milestone - PROGRESS * plain:
            milestone, milestone_step = best_kl, step
        elif step - milestone_step >= config.patience:
            break
    progress.close()
    return best, 1 - best_kl / plain


def _parametrize(start: Directions, scales: Tensor, config: FitConfig):
    """The fitted parameters, in units of the residual, and the directions that they stand for."""
    relative = start / scales
    if config.parametrization == "free":
        free = relative.clone().requires_grad_(True)
        return [free], lambda: free * scales
    size = relative.square().mean(-1, keepdim=True).sqrt().clamp(min=0.1)
    generator = torch.Generator().manual_seed(config.seed)
    is_zero = (relative == 0).all(-1, keepdim=True)
    direction = torch.where(is_zero, torch.randn(relative.shape, generator=generator), relative / size)
    direction, log_size = direction.requires_grad_(True), size.log().requires_grad_(True)

    def joint() -> Tensor:
        return log_size.exp() * direction / direction.square().mean(-1, keepdim=True).sqrt() * scales

    return [direction, log_size], joint


def _batches(n_batches: int, config: FitConfig) -> Iterator[int]:
    order = np.random.default_rng(config.seed)
    made = 0
    while made < config.steps:
        for index in order.permutation(n_batches)[: config.steps - made]:
            made += 1
            yield int(index)
