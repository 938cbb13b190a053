"""EAS next to its floors: planted shifts are nearest to what they were made of, and what all traits share is taken off."""

import numpy as np
import pytest
import torch

from steerlens.similarity import Similarity, similarity_floors
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

SOURCE, RNG = VectorSource("m", "by hand"), np.random.default_rng(0)


def vector(*directions: np.ndarray) -> SteeringVector:
    return SteeringVector(
        tuple(range(len(directions))), torch.tensor(np.stack(directions), dtype=torch.float32), SOURCE
    )


def test_cosine_and_strength_are_those_of_their_formulas():
    v, shift = RNG.normal(size=16), RNG.normal(size=16)
    found = Similarity.of(vector(shift, 2 * v), vector(v, v))
    assert found.cosine == pytest.approx([shift @ v / np.linalg.norm(shift) / np.linalg.norm(v), 1.0])
    assert found.strength == pytest.approx([shift @ v / (v @ v), 2.0])


def test_what_all_traits_share_makes_floors_high_and_centring_takes_it_off():
    shared, own = 2 * RNG.normal(size=64), {name: RNG.normal(size=64) for name in ("owl", "cat", "fox", "dog")}
    vectors = {name: vector(shared + part) for name, part in own.items()}
    shifts = [vector(0.5 * (shared + own["owl"]) + 0.2 * RNG.normal(size=64)) for _ in range(3)]
    others = {name: one for name, one in vectors.items() if name != "owl"}
    control = [vector(RNG.normal(size=64))]
    floors = similarity_floors(shifts, vectors["owl"], others=others, control=control, layer=0)
    assert floors.others_highest > 0.6, "personas are alike"
    assert floors.own_centred > 0.15 > floors.others_centred
    assert abs(floors.control) < 0.4
    assert floors.random == pytest.approx(1.96 / 8)
    assert floors.others_mean <= floors.others_highest


def test_without_other_traits_or_controls_their_floors_are_not_measured():
    one = vector(RNG.normal(size=8))
    floors = similarity_floors([one], one, others={}, control=[], layer=0)
    assert np.isnan([floors.control, floors.others_mean, floors.others_highest, floors.others_centred]).all()
    assert floors.own_centred == pytest.approx(1.0)
