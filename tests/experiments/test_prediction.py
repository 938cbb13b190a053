"""Planted answers of the statistics: perfect, reversed and useless predictors, and shares of groups that are left out."""

import numpy as np
import pytest

from steerlens.experiments.zoo.prediction import (
    brier,
    concordance,
    left_out_shares,
    over_prompts,
    pearson,
    spearman,
)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def test_the_area_under_the_curve_is_that_of_every_pair_counted():
    scores, passed = column(0.1, 0.4, 0.35, 0.8), column(0, 0, 1, 1)
    assert concordance(scores, passed) == pytest.approx(0.75)
    assert concordance(-scores, passed) == pytest.approx(0.25)
    assert concordance(np.zeros(4), passed) == pytest.approx(0.5)


def test_it_is_scikit_learns_area_where_scores_are_tied():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, passed = rng.integers(0, 4, 60).astype(float), rng.integers(0, 2, 60).astype(float)
    assert concordance(scores, passed) == pytest.approx(roc_auc_score(passed, scores))


def test_nothing_is_claimed_where_all_outcomes_are_the_same():
    assert np.isnan(concordance(column(1, 2, 3), np.ones(3)))
    assert np.isnan(over_prompts(concordance, column(1, 2, 3), np.ones(3)).low)
    assert np.isnan(pearson(np.ones(3), column(1, 2, 3)))


def test_ranks_see_a_monotone_relation_that_a_line_does_not_fit_and_ties_share_a_rank():
    x = np.arange(1.0, 9.0)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert pearson(x, np.exp(x)) < 0.8
    assert spearman(column(1, 1, 2, 2), column(5, 5, 7, 7)) == pytest.approx(1.0)


def test_the_interval_of_a_perfect_predictor_is_a_point_and_that_of_noise_holds_chance():
    passed = np.repeat([0.0, 1.0], 12)
    perfect = over_prompts(concordance, passed + np.linspace(0, 0.5, 24), passed)
    assert (perfect.low, perfect.value, perfect.high) == (1.0, 1.0, 1.0)
    noise = over_prompts(concordance, np.random.default_rng(1).normal(size=24), passed)
    assert noise.low < 0.5 < noise.high


def test_a_group_is_judged_by_the_others_with_its_label_and_never_by_itself():
    labels, groups = ["yes", "yes", "yes", "no", "no"], ["a", "a", "b", "a", "c"]
    happened = np.array([True, True, False, False, False])
    found = left_out_shares(labels, happened, groups)
    assert found == pytest.approx([1 / 3, 1 / 3, 3 / 4, 1 / 3, 1 / 3])


def test_a_label_that_no_other_group_has_gives_a_half():
    assert left_out_shares(["x", "y", "y"], np.array([True, True, True]), ["a", "b", "b"]) == pytest.approx([0.5] * 3)


def test_a_coin_scores_a_quarter():
    assert brier(np.full(4, 0.5), np.array([True, False, True, False])) == pytest.approx(0.25)
