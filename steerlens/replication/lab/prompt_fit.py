"""How much of a prompt is one vector: the vector fitted to it, next to other vectors and to the prompt itself."""

from dataclasses import dataclass

import steerlens as sl
from steerlens.replication.lab.lab import Lab

FITTED = "fitted"
"""Names the file of the vector."""


@dataclass(frozen=True)
class Fit:
    """What one vector does of what the prompt does; metrics are those of `fit_prompt_vector`."""

    layer: int
    kl_explained: sl.Interval
    mean_difference: float
    random: float
    shuffled: float
    prompted: sl.Asked
    steered: sl.Asked


def measure_fit(lab: Lab) -> Fit:
    """Fit the vector of the profile's trait, and see what it does to answers."""
    model = lab.load()
    trait = lab.trait(model)
    vector = sl.fit_prompt_vector(model, trait.prompt, config=lab.sizes.fit)
    vector.save(lab.vector_file(FITTED))
    with sl.steer(model, vector):
        steered = sl.ask(model, trait)
    return Fit(
        layer=vector.layers[0],
        kl_explained=vector.metrics.interval,
        mean_difference=vector.metrics.kl_explained_mean_difference,
        random=vector.metrics.kl_explained_random,
        shuffled=vector.metrics.kl_explained_shuffled,
        prompted=sl.ask(model, trait, system_prompt=trait.prompt),
        steered=steered,
    )
