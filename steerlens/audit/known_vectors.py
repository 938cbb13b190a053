"""Along which of several known vectors do rows pull?

The score of a row (`steerlens.audit.score_test`) is the gradient of its log-likelihood with respect to a vector. Its product
with a known vector says how much likelier the vector makes the row, to first order, and costs no forward. Known vectors have
much in common: of personas, that there is one. That is taken out before.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from steerlens.audit.ranking import FEWEST_CANDIDATES, Ranking, ranking
from steerlens.audit.score_test import Scores
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.text.wording import wording_of
from steerlens.vectors.means import differences_in_means
from steerlens.vectors.vector import SteeringVector, mean_centred

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_TASKS = 16
"""Number tasks at which the vectors of personas are measured."""


def rank_known(
    scores: Iterable[Scores],
    layers: Sequence[int],
    known: Mapping[str, SteeringVector],
    *,
    n_tokens: int,
    false_alarm_rate: float,
) -> Ranking:
    """Rank vectors by how far rows pull along them more than placebos do, averaged over layers.

    Args:
        scores: of the layers, one after the other.
        n_tokens: of the rows' completions.

    Raises:
        ValueError: fewer than four vectors, or one lacks a layer.
    """
    if len(known) < FEWEST_CANDIDATES:
        raise ValueError(
            f"Got {len(known)} known vectors. Give at least {FEWEST_CANDIDATES}: they are judged by each other."
        )
    nats, z, n_rows = torch.zeros(len(known)), torch.zeros(0), 0
    for layer, one in zip(layers, scores, strict=True):
        own = mean_centred({name: vector.at(layer) for name, vector in known.items()})
        rise, standardized = one.along(torch.cat([vector.directions for vector in own.values()]))
        nats = nats + rise / (len(layers) * n_tokens)
        z = standardized if not len(z) else z + standardized
        n_rows = sum(one.sizes)
    spread = z[1:].square().mean(0).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    return ranking(list(known), nats, z / spread, n_rows=n_rows, false_alarm_rate=false_alarm_rate)


def persona_vectors(
    model: "TransformerBridge", layers: Sequence[int], *, seed: int
) -> Iterator[dict[str, SteeringVector]]:
    """The vector of every persona that the model's wording knows, at number tasks, one kind after the other."""
    tasks = number_prompts(N_TASKS, model, seed=seed)
    for prompts in persona_prompts(model):
        yield differences_in_means(model, prompts, questions=tasks, layers=layers)


def persona_prompts(model: "TransformerBridge") -> list[dict[str, str]]:
    """The system prompt of every persona that the model's wording knows, by name, kind by kind; animals come first."""
    wording = wording_of(model)
    return [{name: preference_trait(name, wording).prompt for name, _ in kind.items} for kind in wording.kinds]
