"""What v_teacher may be: a prompt as a vector in several ways, each chosen on validation rows and judged on others."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from steerlens.prompts.chat import chat_fingerprint
from steerlens.prompts.numbers import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.fit_quality import explained_with_interval, random_directions
from steerlens.vectors.layer_fits import STRENGTHS, fit_each_layer, fit_layers, frozen
from steerlens.vectors.resumed import Directions, ResumedRows
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ONE_LAYER, ALL_LAYERS = "fitted, one layer", "fitted, all layers"
MEAN_ONE_LAYER, MEAN_ALL_LAYERS = "mean difference, one layer", "mean difference, all layers"
RANDOM = "random"

Placed = tuple[tuple[int, ...], Directions]
"""Layers, and the direction that is added at each."""


def teacher_vectors(model: "TransformerBridge", prompt: str, config: FitConfig) -> dict[str, SteeringVector]:
    """The prompt's vector by name: mean difference or fitted, at the best single layer or at all, and a random one.

    Layers and strengths are those with the largest kl_explained on validation rows; strength is multiplied in. The random
    vector is Gaussian with the norms of the one that is fitted at all layers. Metrics: `validation` (kl_explained
    on validation rows), and `kl_explained` with `_low` and `_high` on held-out rows.

    Raises:
        ValueError: the prompt is empty or changes no prediction.
    """
    layers = tuple(range(model.cfg.n_layers))
    data = FitData.sample(model, prompt, number_prompts(2 * config.n_rows, seed=config.seed), config)
    with frozen(model):
        alone = fit_each_layer(model, data, layers, replace(config, steps=max(1, config.steps // 3)))
        one = max(alone, key=lambda fit: fit.validation).refined(model, data, config)
        jointly = fit_layers(model, data, layers, config)
        mean = max(alone, key=lambda fit: fit.mean_difference_validation)
        placed: dict[str, Placed] = {
            MEAN_ONE_LAYER: (mean.layers, mean.mean_difference),
            MEAN_ALL_LAYERS: (layers, _mean_difference_everywhere(model, data, layers, config)),
            ONE_LAYER: (one.layers, one.directions),
            ALL_LAYERS: (layers, jointly.directions),
            RANDOM: (layers, random_directions(jointly.directions, config)[0]),
        }
        return {name: _vector(model, prompt, data, name, place, config) for name, place in placed.items()}


def everywhere(vector: SteeringVector, n_layers: int) -> SteeringVector:
    """A vector of one layer with its direction at every layer, as the paper takes a direction out; others as they are."""
    if len(vector.layers) > 1:
        return vector
    return replace(vector, layers=tuple(range(n_layers)), directions=vector.directions.repeat(n_layers, 1))


def _mean_difference_everywhere(
    model: "TransformerBridge", data: FitData, layers: Sequence[int], config: FitConfig
) -> Directions:
    """The mean difference at all layers together, at its best strength on validation rows."""
    train, validation = (ResumedRows(model, layers, part, config.positions) for part in (data.train, data.validation))
    difference = data.prompted - train.last_prompt
    return min((strength * difference for strength in STRENGTHS), key=validation.mean_kl)


def _vector(
    model: "TransformerBridge", prompt: str, data: FitData, name: str, placed: Placed, config: FitConfig
) -> SteeringVector:
    layers, directions = placed
    validation, heldout = (
        ResumedRows(model, layers, part, config.positions) for part in (data.validation, data.heldout)
    )
    plain, steered = (heldout.row_kl(added)[:, 0] for added in (heldout.nothing, directions))
    explained, low, high = explained_with_interval(steered, plain, heldout.questions, seed=config.seed)
    chosen_by = 1 - validation.mean_kl(directions) / validation.mean_kl(validation.nothing)
    source = VectorSource.of(
        model,
        method=name,
        prompt=prompt,
        chat_fingerprint=chat_fingerprint(model.tokenizer),
        seed=config.seed,
    )
    metrics = {
        "validation": chosen_by,
        "kl_explained": explained,
        "kl_explained_low": low,
        "kl_explained_high": high,
    }
    return SteeringVector(tuple(layers), torch.as_tensor(directions), source, metrics)
