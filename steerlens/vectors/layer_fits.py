"""A direction at one layer, or one at each of several: from the mean difference down to the best fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import ROUND, Descent
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.resumed import Directions, ResumedRows
from steerlens.vectors.sensitivity import Sensitivity, sensitivity

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths at which the mean difference is tried; it enters every comparison at its best one."""

NO_EFFECT = 1e-3
"""Below this KL (nats a token) a prompt does nothing that a vector could explain."""


class NoEffect(ValueError):
    """What a vector is to explain changes no prediction."""


@dataclass(frozen=True)
class Fit:
    """Directions fitted at some layers; `validation` values are kl_explained on validation rows.

    `mean_difference` is that of the same layers, or of one of them, at its best strength. `units` are the lengths that
    count as one in each coordinate (`Sensitivity.units`).
    """

    layers: tuple[int, ...]
    directions: Directions
    units: Directions
    validation: float
    converged: bool
    mean_difference: Directions
    mean_difference_validation: float


class LayerFit:
    """A fit under way: rows that resume at its lowest layer, and the best directions so far.

    `below` is one at lower layers, from which the rows' residuals are run on.

    Raises:
        NoEffect: the prompt changes no prediction.
    """

    def __init__(
        self,
        model: "TransformerBridge",
        data: FitData,
        layers: Sequence[int],
        config: FitConfig,
        units: Directions,
        *,
        below: "LayerFit | None" = None,
    ) -> None:
        lower = (None, None) if below is None else (below._train, below._validation)
        self._train = ResumedRows(model, layers, data.train, config.positions, below=lower[0])
        self._validation = ResumedRows(model, layers, data.validation, config.positions, below=lower[1])
        plain = self._validation.plain_kl
        if plain < NO_EFFECT:
            raise NoEffect(
                f"The prompt changes the model's predictions by {plain:.1e} nats a token, so there is nothing for a vector "
                "to explain and kl_explained is undefined. Give a prompt that has an effect on these questions."
            )
        difference = data.prompted[list(layers)] - self._train.last_prompt
        self._difference, left = _best_strength(self._validation, difference)
        self._by_difference = 1 - left / plain
        starts_there = self._by_difference > 0
        self.descent = Descent(
            self._train,
            self._validation,
            self._difference if starts_there else self._validation.nothing,
            config,
            explained=self._by_difference if starts_there else 0.0,
            units=units,
        )
        self._layers, self._units = tuple(layers), units

    @property
    def fit(self) -> Fit:
        """The best so far."""
        found = self.descent
        return Fit(
            self._layers,
            found.directions,
            self._units,
            found.explained,
            found.converged,
            self._difference,
            self._by_difference,
        )


def fit_layers(
    model: "TransformerBridge",
    data: FitData,
    layers: Sequence[int],
    config: FitConfig,
    *,
    on_step: Callable[[], object] = lambda: None,
) -> Fit:
    """One fit of a direction at every layer, all of them jointly, from the mean difference's best strength or from nothing.

    Raises:
        ValueError: the prompt changes no prediction.
    """
    units = sensitivity(model, layers, data.train, config.positions, seed=config.seed).units
    under_way = LayerFit(model, data, layers, config, units)
    under_way.descent.to_its_end(on_step)
    return under_way.fit


def fit_each_layer(
    model: "TransformerBridge",
    data: FitData,
    layers: Sequence[int],
    config: FitConfig,
    *,
    on_step: Callable[[], object] = lambda: None,
) -> list[Fit]:
    """One fit of a single direction at each layer; start and errors as in `fit_layers`."""
    sensitivities = sensitivity(model, layers, data.train, config.positions, seed=config.seed)
    fits = []
    for layer in layers:
        under_way = LayerFit(model, data, [layer], config, sensitivities.at([layer]).units)
        under_way.descent.to_its_end(on_step)
        fits.append(under_way.fit)
    return fits


def search_layers(
    model: "TransformerBridge",
    data: FitData,
    layers: Sequence[int],
    config: FitConfig,
    *,
    on_step: Callable[[], object] = lambda: None,
) -> list[Fit]:
    """Fits at the most promising layers, the best one first and to its end; the others as far as they were compared.

    One backward pass predicts what each layer can explain, and so chooses `config.candidates` of them. Each is fitted for a
    round of steps, the better half for another, and so on; the one that is left is fitted until nothing is gained.

    Raises:
        ValueError: the prompt changes no prediction.
    """
    sensitivities = sensitivity(model, layers, data.train, config.positions, seed=config.seed)
    fits: list[LayerFit] = []
    for layer in _promising(sensitivities, config.candidates):
        units = sensitivities.at([layer]).units
        fits.append(LayerFit(model, data, [layer], config, units, below=fits[-1] if fits else None))
    rest = fits
    while len(rest) > 1 and not all(one.descent.is_over for one in rest):
        for one in rest:
            one.descent.go_on(on_step)
        rest = sorted(rest, key=lambda one: -one.descent.explained)[: (len(rest) + 1) // 2]
    max(rest, key=lambda one: one.descent.explained).descent.to_its_end(on_step)
    return sorted((one.fit for one in fits), key=lambda fit: -fit.validation)


def steps_of_search(n_layers: int, config: FitConfig) -> int:
    """The most steps that `search_layers` takes."""
    n_fits, left, total = min(n_layers, config.candidates), config.steps, 0
    while n_fits > 1 and left:
        steps = min(ROUND, left)
        n_fits, left, total = (n_fits + 1) // 2, left - steps, total + n_fits * steps
    return total + left


def _promising(sensitivities: Sensitivity, n_candidates: int) -> list[int]:
    """The layers of the largest predicted gains, no two of them close to each other, in ascending order.

    Predictions are noisy and change slowly from layer to layer, so each is averaged with its neighbours.
    """
    padded = torch.nn.functional.pad(sensitivities.gains[None, None], (1, 1), mode="replicate")
    smooth = padded.unfold(-1, 3, 1).mean(-1)[0, 0]
    n_candidates = min(n_candidates, len(smooth))
    apart = max(1, len(smooth) // (2 * n_candidates))
    chosen: list[int] = []
    for index in smooth.argsort(descending=True).tolist():
        if len(chosen) < n_candidates and all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return [sensitivities.layers[index] for index in sorted(chosen)]


def _best_strength(validation: ResumedRows, directions: Directions) -> tuple[Directions, float]:
    """The directions at their best strength, at all of their layers together or at one alone, and the KL that is left."""
    n_layers = len(directions)
    alone = list(torch.eye(n_layers)) if n_layers > 1 else []
    found = [at_best_strength(validation, directions * one[:, None]) for one in [torch.ones(n_layers), *alone]]
    return min(found, key=lambda one: one[1])


def at_best_strength(validation: ResumedRows, directions: Directions) -> tuple[Directions, float]:
    """The directions at their best strength, and the KL that is left; strengths go up for as long as less is left."""
    best, least, before = validation.nothing, float("inf"), validation.plain_kl
    for strength in STRENGTHS:
        tried = strength * directions
        left = validation.mean_kl(tried)
        if left < least:
            best, least = tried, left
        if left > before:
            break
        before = left
    return best, least
