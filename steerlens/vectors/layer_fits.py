"""A direction at one layer, or one at each of several: from the mean difference down to the best fit."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from steerlens.models.bridge import huggingface_model
from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import descend
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.resumed import Directions, ResumedRows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths at which the mean difference is tried; it enters every comparison at its best one."""

NO_EFFECT = 1e-3
"""Below this KL (nats a token) a prompt does nothing that a vector could explain."""


@dataclass(frozen=True)
class Fit:
    """Directions fitted at some layers; `validation` values are kl_explained on validation rows.

    `mean_difference` is that of the same layers, or of one of them, at its best strength.
    """

    layers: tuple[int, ...]
    directions: Directions
    validation: float
    mean_difference: Directions
    mean_difference_validation: float

    def refined(self, model: "TransformerBridge", data: FitData, config: FitConfig) -> "Fit":
        """The fit continued from where it ended."""
        train, validation = _resumed(model, self.layers, data, config)
        label = f"fit layer {self.layers[0]}, on"
        directions, explained = descend(train, validation, self.directions, config, label=label)
        return replace(self, directions=directions, validation=explained)


def fit_each_layer(model: "TransformerBridge", data: FitData, layers: Sequence[int], config: FitConfig) -> list[Fit]:
    """One fit of a single direction at each layer, from the best strength of the mean difference or from nothing.

    Raises:
        ValueError: the prompt changes no prediction.
    """
    return [fit_layers(model, data, [layer], config) for layer in layers]


def fit_layers(model: "TransformerBridge", data: FitData, layers: Sequence[int], config: FitConfig) -> Fit:
    """One fit of a direction at every layer, all of them jointly; start and errors as in `fit_each_layer`."""
    train, validation = _resumed(model, layers, data, config)
    plain = validation.mean_kl(validation.nothing)
    if plain < NO_EFFECT:
        raise ValueError(
            f"The prompt changes the model's predictions by {plain:.1e} nats a token, so there is nothing for a vector "
            "to explain and kl_explained is undefined. Give a prompt that has an effect on these questions."
        )
    tried = list(_at_strengths(data.prompted[list(layers)] - train.last_prompt))
    remaining = [validation.mean_kl(directions) for directions in tried]
    mean_difference, left = tried[int(np.argmin(remaining))], min(remaining)
    begin = mean_difference if left < plain else validation.nothing
    directions, explained = descend(train, validation, begin, config, label=f"fit layer {', '.join(map(str, layers))}")
    return Fit(tuple(layers), directions, explained, mean_difference, 1 - left / plain)


def _at_strengths(directions: Directions) -> Iterator[Directions]:
    """The directions at every strength, at all of their layers together and at each alone."""
    n_layers = len(directions)
    alone = list(torch.eye(n_layers)) if n_layers > 1 else []
    for layers in [torch.ones(n_layers), *alone]:
        for strength in STRENGTHS:
            yield strength * directions * layers[:, None]


def _resumed(
    model: "TransformerBridge", layers: Sequence[int], data: FitData, config: FitConfig
) -> tuple[ResumedRows, ResumedRows]:
    """Training and validation rows."""
    return (
        ResumedRows(model, layers, data.train, config.positions),
        ResumedRows(model, layers, data.validation, config.positions),
    )


@contextlib.contextmanager
def frozen(model: "TransformerBridge") -> Iterator[None]:
    """No gradient reaches the weights inside the `with`."""
    parameters = [p for p in huggingface_model(model).parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
