"""Adam on the vector alone, in natural units, with the best of it on validation rows kept.

The descent goes in rounds. In each, the learning rate falls linearly to nearly nothing, and validation rows say what the
round gained. A round that gains next to nothing is followed by one at a much smaller rate, from the best directions so far;
when that gains nothing either, the descent has converged. So the answer does not hang on the rate, and a descent that ran
out of steps is known as such.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steerlens.vectors.config import FitConfig
from steerlens.vectors.resumed import Directions, ResumedRows

ROUND = 40
"""Steps in a round."""

PROGRESS = 0.004
"""A gain in kl_explained on validation rows that makes another round worth its cost."""

SMALLER = 0.25
"""The next round's learning rate over this one's, where this one made no progress."""

ENOUGH = 2
"""Rounds in a row without progress, the last of them at a much smaller rate, after which a descent has converged."""


@dataclass(frozen=True)
class Descent:
    """Directions, their kl_explained on validation rows, and whether more steps would have gained nothing."""

    directions: Directions
    explained: float
    converged: bool


def descend(
    train: ResumedRows,
    validation: ResumedRows,
    start: Directions,
    config: FitConfig,
    *,
    units: Directions,
    on_step: Callable[[], object] = lambda: None,
) -> Descent:
    """Minimise the objective from `start`, in at most `config.steps` steps.

    Args:
        units: the length of each coordinate that counts as one (`Sensitivity.units`).
        on_step: called after every step, for a progress bar.

    Returns:
        The best directions on validation rows, `start` among them.
    """
    plain = validation.mean_kl(validation.nothing)
    best, explained = start.clone(), 1 - validation.mean_kl(start) / plain
    rate, converged, batches = config.learning_rate * (2 * plain / start.numel()) ** 0.5, False, _batches(train, config)
    idle = 0
    for done in range(0, config.steps, ROUND):
        steps = min(ROUND, config.steps - done)
        tried = _round(train, best, units, rate, [next(batches) for _ in range(steps)], config, on_step)
        gain = 1 - validation.mean_kl(tried) / plain - explained
        if gain > 0:
            best, explained = tried, explained + gain
        idle = idle + 1 if gain < PROGRESS else 0
        rate *= SMALLER if idle else 1
        if steps == ROUND and idle == ENOUGH:
            converged = True
            break
    return Descent(best, explained, converged)


def _round(
    train: ResumedRows,
    start: Directions,
    units: Directions,
    rate: float,
    batches: list[int],
    config: FitConfig,
    on_step: Callable[[], object],
) -> Directions:
    parameters, directions = _parametrize(start, units, rate, config)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=len(batches))
    for index in batches:
        optimizer.zero_grad()
        loss = train.loss(index, directions(), config.objective).mean()
        if config.l2:
            loss = loss + config.l2 * (directions() / train.scales[:, None]).square().mean(-1).sum().to(loss)
        loss.backward()
        optimizer.step()
        schedule.step()
        on_step()
    return directions().detach()


def _parametrize(
    start: Directions, units: Directions, rate: float, config: FitConfig
) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """The fitted parameters, in natural units, and the directions that they stand for."""
    natural = start / units
    if config.parametrization == "free":
        free = natural.clone().requires_grad_(True)
        return [free], lambda: free * units
    generator = torch.Generator().manual_seed(config.seed)
    is_zero = (natural == 0).all(-1, keepdim=True)
    direction = torch.where(is_zero, rate * torch.randn(natural.shape, generator=generator), natural)
    strength = direction.square().mean(-1, keepdim=True).sqrt().requires_grad_(True)
    direction.requires_grad_(True)

    def joint() -> Tensor:
        return strength * direction / direction.square().mean(-1, keepdim=True).sqrt() * units

    return [direction, strength], joint


def _batches(train: ResumedRows, config: FitConfig) -> Iterator[int]:
    """Batches in a new order each time round, without end."""
    order = np.random.default_rng(config.seed)
    while True:
        yield from order.permutation(len(train)).tolist()
