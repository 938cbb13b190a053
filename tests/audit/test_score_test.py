"""The test is exact where nothing is hidden, and finds what was planted."""

import numpy as np
import pytest
import torch

from steerlens.audit import score_test as module
from steerlens.audit.score_test import (
    RIDGE,
    STRENGTHS,
    ScoreSums,
    ScoreTest,
    random_halves,
    random_signs,
    score_test,
)

N_ROWS, D_MODEL = 120, 12


def differences(rng: np.random.Generator, shift: float = 0.0) -> list[torch.Tensor]:
    """Scores at three layers that share their noise, which is far from round and heavy-tailed."""
    noise = rng.standard_t(3, (N_ROWS, D_MODEL)) * np.linspace(0.1, 3, D_MODEL)
    mixed = [noise @ rng.standard_normal((D_MODEL, D_MODEL)) for _ in range(3)]
    mixed[1][:, 0] += shift * mixed[1][:, 0].std()
    return [torch.tensor(layer).float() for layer in mixed]


def collected(layers: list[torch.Tensor], *, at_once: int = 50, **options) -> ScoreSums:
    """The rows of all layers, some after the others and in no particular order."""
    n_rows = len(layers[0])
    sums = ScoreSums(len(layers), n_rows, **options)
    for indices in torch.randperm(n_rows, generator=torch.Generator().manual_seed(5)).split(at_once):
        sums.add(indices.tolist(), torch.stack(layers)[:, indices])
    return sums


def outcome(layers: list[torch.Tensor], names=(0, 1, 2), **options) -> ScoreTest:
    sums = collected(layers, **options)
    return score_test(map(sums.layer, range(len(layers))), names)


def test_p_values_are_uniform_where_rows_and_placebos_are_alike():
    rng = np.random.default_rng(0)
    p = np.array([outcome(differences(rng), n_flips=99).p_value for _ in range(300)])
    for level in (0.05, 0.2, 0.5):  # three standard errors of the share of 300
        assert (p <= level).mean() == pytest.approx(level, abs=3 * (level * (1 - level) / 300) ** 0.5)


def test_a_planted_shift_is_found_at_its_layer():
    found = outcome(differences(np.random.default_rng(1), shift=1.0), (4, 5, 6))
    assert found.p_value < 0.01
    assert found.layer == 5


def test_the_vector_is_the_ridged_fisher_informations_inverse_times_the_mean():
    rows = differences(np.random.default_rng(2), shift=1.0)[1]
    scores = collected([rows]).layer(0)
    fisher = rows.T @ rows / (2 * N_ROWS)
    ridged = fisher + RIDGE * fisher.diagonal().mean() * torch.eye(D_MODEL)
    torch.testing.assert_close(scores.vectors[0], torch.linalg.solve(ridged, rows.mean(0)), rtol=1e-3, atol=1e-5)
    for vector, half in zip(scores.half_vectors, random_halves(N_ROWS, seed=0), strict=True):
        torch.testing.assert_close(vector, torch.linalg.solve(ridged, rows[half].mean(0)), rtol=1e-3, atol=1e-5)


def test_gains_are_those_of_rows_that_are_swapped_one_by_one():
    rows, halves = differences(np.random.default_rng(6), shift=0.5)[1], random_halves(N_ROWS, seed=0)
    gains = collected([rows], n_flips=20).layer(0).heldout_gains
    fisher = rows.T @ rows / (2 * N_ROWS)
    inverse = torch.linalg.inv(fisher + RIDGE * fisher.diagonal().mean() * torch.eye(D_MODEL))
    signs = torch.cat([torch.ones(1, N_ROWS), random_signs(20, N_ROWS, seed=0).float()])
    for gain, sign in zip(gains, signs, strict=True):
        one, other = ((sign[half, None] * rows[half]).mean(0) for half in halves)
        agreement, size = one @ inverse @ other, one @ inverse @ one + other @ inverse @ other
        assert float(gain) == pytest.approx(max(float(s * agreement - s**2 / 4 * size) for s in STRENGTHS), rel=1e-3)


@pytest.mark.parametrize("at_once", [7, 60])
def test_adding_up_early_and_often_changes_nothing_and_keeps_no_rows(monkeypatch, at_once):
    layers = [torch.randn(900, 3, generator=torch.Generator().manual_seed(layer)) + 0.05 for layer in range(2)]
    kept, few = collected(layers, n_flips=499), collected(layers, at_once=at_once, n_flips=20)
    assert sum(map(len, kept._waiting[0])) == 900
    monkeypatch.setattr(module, "BLOCK", 40)
    added = collected(layers, at_once=at_once, n_flips=20)
    assert sum(map(len, added._waiting[0])) < 40
    for layer in range(2):
        assert few.layer(layer).sizes == added.layer(layer).sizes == (450, 450)
        torch.testing.assert_close(added.layer(layer).fisher, kept.layer(layer).fisher)
        torch.testing.assert_close(added.layer(layer).means, kept.layer(layer).means[:, :21], atol=1e-5, rtol=1e-4)


def test_more_dimensions_than_rows_are_no_obstacle():
    rng = np.random.default_rng(3)
    wide = torch.tensor(rng.standard_normal((40, 300))).float()
    assert outcome([wide], (0,)).p_value > 0.05
    assert outcome([wide + 0.5], (0,)).p_value < 0.01


def test_the_visible_cosine_ignores_directions_that_change_no_prediction():
    rows = differences(np.random.default_rng(4))[0]
    rows[:, -1] = 0  # no row's likelihood depends on the last direction
    scores = collected([rows]).layer(0)
    vector, unseen = torch.randn(D_MODEL), torch.eye(D_MODEL)[-1]
    assert scores.visible_cosine(vector, vector + 100 * unseen) == pytest.approx(1, abs=1e-5)


def test_rows_that_no_vector_changes_give_a_null_without_gain():
    found = outcome([torch.zeros(30, 4)], (0,))
    assert found.gains == (0.0,)
    assert found.p_value == 1.0
