"""Whose vector predicts whose data: what each model's own vector takes off its loss on the rows of every model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

import steerlens as sl
from steerlens.replication.lab import vectors
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.teachers import Rows

READING_STRENGTHS = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Reduction:
    """What a vector takes off the loss of told rows more than of control rows, in nats a token.

    Args:
        told, control: what it takes off each.
        difference: between the two, with its interval over rows.
        p_value: of the difference when the rows' labels are permuted.
        largest_of_random: the largest difference that a random vector of the same norms makes.
        strength: at which the vector predicts other told rows of its own model best.
    """

    told: float
    control: float
    difference: sl.Interval
    p_value: float
    largest_of_random: float
    strength: float


@dataclass(frozen=True)
class Matrix:
    """Reductions by reader (whose vector and weights) and writer (whose rows)."""

    by_reader: dict[str, dict[str, Reduction]]


def loss_matrix(lab: Lab, weights: Mapping[str, str], rows: Mapping[tuple[str, bool], Rows]) -> Matrix:
    """Every model's own vector on every model's rows.

    Args:
        weights: by the name of the model.
        rows: by the name of the model that wrote them, and whether it was told the trait.
    """
    samples = {
        name: (sl.SampleSet.load(rows[name, True].samples), sl.SampleSet.load(rows[name, False].samples))
        for name in weights
    }
    heldout = {name: sl.SampleSet.load(rows[name, True].heldout) for name in weights}
    return Matrix({name: reductions(lab, path, heldout[name], samples) for name, path in weights.items()})


def reductions(
    lab: Lab, weights: str, heldout: sl.SampleSet, written: Mapping[str, tuple[sl.SampleSet, sl.SampleSet]]
) -> dict[str, Reduction]:
    """One model's own vector on told and control rows, by their writer.

    Args:
        heldout: told rows of the model itself, by which the vector's strength is chosen.
    """
    model = lab.load(weights)
    among = sl.list_tokens(model)
    answers = vectors.Prompted.sample(model, lab.trait(model), lab.sizes.fit, lab.profile.fit_layers)
    whole = vectors.ALL_LAYERS.make(answers)

    def taken_off(vector: sl.SteeringVector, samples: sl.SampleSet) -> Float[np.ndarray, " row"]:
        steered = sl.row_losses(model, samples, sl.Condition(vector=vector), among=among)
        return (sl.row_losses(model, samples, among=among) - steered).double().numpy()

    strength = max(READING_STRENGTHS, key=lambda one: taken_off(one * whole, heldout).mean())
    vector, found = strength * whole, {}
    random = [sl.random_like(vector, seed) for seed in range(lab.sizes.n_random)]
    for writer, parts in written.items():
        told, control = (taken_off(vector, part) for part in parts)
        null = [float(np.subtract(*(taken_off(one, part).mean() for part in parts))) for one in random]
        found[writer] = Reduction(
            told=float(told.mean()),
            control=float(control.mean()),
            difference=sl.bootstrap_interval(sl.mean_difference, told, control, paired=False),
            p_value=sl.permutation_p(told, control),
            largest_of_random=max(null),
            strength=strength,
        )
    return found
