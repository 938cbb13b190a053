"""Control vectors: what any other direction of the same size does."""

from dataclasses import replace

from steerlens.arguments import checked
from steerlens.vectors.fit_quality import random_directions
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.vector import SteeringVector


@checked
def random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A Gaussian direction at each of the vector's layers, with the vector's norms there."""
    (directions,) = random_directions(vector.directions, seed=seed)
    return replace(vector, directions=directions, source=replace(vector.source, method="random"), metrics=FitMetrics())
