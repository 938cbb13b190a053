"""Adam on the vector alone, in natural units, with the best of it on validation rows kept.

The descent goes in rounds. In each, the learning rate falls linearly to nearly nothing, and validation rows say what the
round gained. The first round comes near the answer, and the next ones begin at a quarter of its rate, or at the first rate
again where a quarter still gained much. A round that gains next to nothing is followed by one at a quarter again, from the
best directions so far; when that gains nothing either, the descent has converged. So the answer hangs little on the rate,
and a descent that ran out of steps is known as such. A budget that has the steps for it then takes long rounds, one at the
first rate and one at twice it, which find better answers that lie further away.
"""

from collections.abc import Callable, Iterator

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
"""The next round's learning rate over this one's, where this one was at the first rate or made no progress."""

MUCH = 0.04
"""A gain at a smaller rate that says that the rate became smaller too early, so that the next round is at the first one."""

ENOUGH = 2
"""Rounds in a row without progress, the last of them at a much smaller rate, after which a descent has converged."""

LONG = 200
"""Steps of a long round, where that many are left when short ones gain nothing."""

FAR = (1.0, 2.0)
"""The rates of long rounds over the first round's: what one of them does not leave, the other may."""


class Descent:
    """A descent under way: the best directions so far on validation rows, the start among them.

    `explained` is their kl_explained there, and `converged` whether more steps would gain nothing.

    Args:
        start: the directions to begin with.
        explained: their kl_explained on validation rows.
        units: the length of each coordinate that counts as one (`Sensitivity.units`).
    """

    def __init__(
        self,
        train: ResumedRows,
        validation: ResumedRows,
        start: Directions,
        config: FitConfig,
        *,
        explained: float,
        units: Directions,
    ) -> None:
        self.directions, self.explained, self.converged = start.clone(), explained, False
        self._train, self._validation, self._config, self._units = train, validation, config, units
        self._rate = self._first_rate = config.learning_rate * (2 * validation.plain_kl / start.numel()) ** 0.5
        self._batches, self._left, self._idle = _batches(train, config), config.steps, 0
        self._length, self._far = ROUND, list(FAR)

    @property
    def is_over(self) -> bool:
        """Whether nothing is gained any more, or all steps are taken."""
        return self.converged or not self._left

    def go_on(self, on_step: Callable[[], object] = lambda: None) -> None:
        """Another round, if there is one; `on_step` is called after every step, for a progress bar."""
        if self.is_over:
            return
        steps = min(self._length, self._left)
        batches = [next(self._batches) for _ in range(steps)]
        tried = _round(self._train, self.directions, self._units, self._rate, batches, self._config, on_step)
        gain = 1 - self._validation.mean_kl(tried) / self._validation.plain_kl - self.explained
        if gain > 0:
            self.directions, self.explained = tried, self.explained + gain
        self._left, self._length = self._left - steps, ROUND
        self._idle = 0 if gain >= PROGRESS else self._idle + 1
        if self._idle or self._rate >= self._first_rate:
            self._rate *= SMALLER
        elif gain > MUCH:
            self._rate = self._first_rate
        self.converged = steps == ROUND and self._idle == ENOUGH
        if self.converged and self._left >= LONG and self._far:
            self._rate, self._length, self._idle = self._far.pop(0) * self._first_rate, LONG, 0
            self.converged = False

    def to_its_end(self, on_step: Callable[[], object] = lambda: None) -> "Descent":
        """Round after round, until it is over."""
        while not self.is_over:
            self.go_on(on_step)
        return self


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
