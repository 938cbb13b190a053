"""The search for a layer tries those that promise most, gives the better ones more steps, and finds a planted layer."""

from collections import Counter

import pytest
import torch

from steerlens.models.bridge import frozen
from steerlens.text.number_lists import number_prompts
from steerlens.vectors import layer_fits
from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import ROUND, Descent
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.layer_fits import search_layers, steps_of_search
from steerlens.vectors.sensitivity import N_ROWS, Sensitivity, _of_every_length
from tests.vectors.test_fitting import plant


def sensitivity_of(gains: torch.Tensor) -> Sensitivity:
    return Sensitivity(tuple(range(len(gains))), torch.ones(len(gains), 4), gains)


@pytest.mark.parametrize("peak", [4, 12, 25])
def test_candidates_lie_around_the_peak_of_noisy_predictions_and_not_side_by_side(peak):
    layers = torch.arange(30.0)
    for seed in range(20):
        noise = torch.rand(30, generator=torch.Generator().manual_seed(seed))
        gains = torch.exp(-((layers - peak) ** 2) / 50) + 0.2 * noise
        chosen = layer_fits._promising(sensitivity_of(gains), 4)
        assert chosen == sorted(chosen)
        assert min(abs(one - peak) for one in chosen) <= 2
        assert torch.tensor(chosen).diff().min() >= 3


@pytest.mark.parametrize(("n_layers", "n_candidates"), [(1, 4), (2, 4), (4, 4), (5, 4), (7, 3), (30, 16), (30, 30)])
def test_as_many_candidates_as_were_asked_for_or_all_layers(n_layers, n_candidates):
    gains = torch.rand(n_layers, generator=torch.Generator().manual_seed(0))
    chosen = layer_fits._promising(sensitivity_of(gains), n_candidates)
    assert len(set(chosen)) == min(n_layers, n_candidates)


def test_what_a_layer_promises_is_asked_of_rows_of_every_length(tiny):
    config = FitConfig(n_train=4 * N_ROWS, n_validation=1, n_heldout=1, max_new_tokens=8, batch_size=4)
    data = FitData.sample(tiny, "you love owls .", number_prompts(300, tiny, seed=8), config)
    lengths = [one.batch.tokens.shape[1] for one in data.train]
    chosen = _of_every_length(data.train)
    assert sum(len(one.batch) for one in chosen) == N_ROWS
    assert sum(one.batch.tokens.shape[1] for one in chosen) / len(chosen) == pytest.approx(
        sum(lengths) / len(lengths), rel=0.05
    )
    assert lengths[-1] > 1.2 * lengths[0], "the shortest alone would not pass"


@pytest.mark.parametrize(
    ("n_layers", "candidates", "steps", "expected"),
    [(30, 4, 320, 4 * 40 + 2 * 40 + 240), (30, 2, 80, 2 * 40 + 40), (1, 4, 320, 320), (30, 4, 30, 4 * 30)],
)
def test_the_steps_of_a_search_are_known_beforehand(n_layers, candidates, steps, expected):
    assert steps_of_search(n_layers, FitConfig(candidates=candidates, steps=steps)) == expected


@pytest.mark.slow
def test_the_planted_layer_wins_and_the_worse_half_is_dropped_after_each_round(tiny, monkeypatch):
    config = FitConfig(
        n_train=32, n_validation=12, n_heldout=1, max_new_tokens=4, steps=3 * ROUND, batch_size=16, candidates=4
    )
    plant(tiny, 2, monkeypatch)
    data = FitData.sample(tiny, "you love owls .", number_prompts(60, tiny, seed=8), config)
    rounds: Counter[Descent] = Counter()
    go_on = Descent.go_on
    monkeypatch.setattr(Descent, "go_on", lambda self, *args: rounds.update([self]) or go_on(self, *args))
    steps: list[None] = []
    with frozen(tiny):
        fits = search_layers(tiny, data, range(4), config, on_step=lambda: steps.append(None))
    assert fits[0].layers == (2,)
    assert fits[0].validation > 0.9
    assert sorted(rounds.values())[:3] == [1, 1, 2]
    assert 6 * ROUND <= len(steps) <= steps_of_search(4, config) == 7 * ROUND
    assert [fit.validation for fit in fits] == sorted((fit.validation for fit in fits), reverse=True)
