"""The test is exact where nothing is hidden, and finds what was planted."""

import numpy as np
import pytest
import torch

from steerlens.audit.score_test import RIDGE, Scores, random_halves, score_test

N_ROWS, D_MODEL = 120, 12


def differences(rng: np.random.Generator, shift: float = 0.0) -> list[torch.Tensor]:
    """Scores at three layers that share their noise, which is far from round and heavy-tailed."""
    noise = rng.standard_t(3, (N_ROWS, D_MODEL)) * np.linspace(0.1, 3, D_MODEL)
    mixed = [noise @ rng.standard_normal((D_MODEL, D_MODEL)) for _ in range(3)]
    mixed[1][:, 0] += shift * mixed[1][:, 0].std()
    return [torch.tensor(layer).float() for layer in mixed]


def p_value(layers: list[torch.Tensor]) -> float:
    halves = random_halves(N_ROWS, seed=0)
    return score_test([Scores.of(one) for one in layers], range(3), halves, n_flips=99).p_value


def test_p_values_are_uniform_where_rows_and_placebos_are_alike():
    rng = np.random.default_rng(0)
    p = np.array([p_value(differences(rng)) for _ in range(300)])
    for level in (0.05, 0.2, 0.5):  # three standard errors of the share of 300
        assert (p <= level).mean() == pytest.approx(level, abs=3 * (level * (1 - level) / 300) ** 0.5)


def test_a_planted_shift_is_found_at_its_layer():
    layers = differences(np.random.default_rng(1), shift=1.0)
    found = score_test([Scores.of(one) for one in layers], (4, 5, 6), random_halves(N_ROWS, seed=0))
    assert found.p_value < 0.01
    assert found.layer == 5


def test_the_vector_is_the_ridged_fisher_informations_inverse_times_the_mean():
    rows = differences(np.random.default_rng(2), shift=1.0)[1]
    fisher = rows.T @ rows / (2 * N_ROWS)
    expected = torch.linalg.solve(fisher + RIDGE * fisher.diagonal().mean() * torch.eye(D_MODEL), rows.mean(0))
    torch.testing.assert_close(Scores.of(rows).vectors(torch.ones(1, N_ROWS))[0], expected, rtol=1e-3, atol=1e-5)


def test_more_dimensions_than_rows_are_no_obstacle():
    rng = np.random.default_rng(3)
    wide = torch.tensor(rng.standard_normal((40, 300))).float()
    halves = random_halves(40, seed=0)
    assert score_test([Scores.of(wide)], [0], halves).p_value > 0.05
    assert score_test([Scores.of(wide + 0.5)], [0], halves).p_value < 0.01


def test_the_visible_cosine_ignores_directions_that_change_no_prediction():
    rows = differences(np.random.default_rng(4))[0]
    rows[:, -1] = 0  # no row's likelihood depends on the last direction
    scores = Scores.of(rows)
    vector, unseen = torch.randn(D_MODEL), torch.eye(D_MODEL)[-1]
    assert scores.visible_cosine(vector, vector + 100 * unseen) == pytest.approx(1, abs=1e-5)
