"""Intervals hold the truth as often as they say, for the few students that experiments have."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from steerlens.stats import (
    Interval,
    auroc,
    bootstrap_interval,
    brier,
    concordance,
    correlation,
    log_odds_difference,
    mean_interval,
    rate_interval,
    swap_p,
    transfer_share,
)

N_DATASETS, N_QUESTIONS = 400, 20


def sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def students(rng: np.random.Generator, n: int, level: float, questions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`n` students whose log odds are a level, one effect each of the student and the question, and noise."""
    odds = level + own[:n, None] + questions + 0.5 * rng.standard_normal((n, N_QUESTIONS))
    return sigmoid(odds)


def coverage(draw: Callable[[np.random.Generator], Interval], truth: float) -> float:
    intervals = [draw(np.random.default_rng(seed)) for seed in range(N_DATASETS)]
    return float(np.mean([found.low <= truth <= found.high for found in intervals]))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say(n, paired):
    def draw(rng: np.random.Generator) -> Interval:
        questions, own = 0.5 * rng.standard_normal(N_QUESTIONS), rng.standard_normal((2, n))
        shifts = 0.5 * rng.standard_normal(N_QUESTIONS)
        one = students(rng, n, 1.0, questions + shifts, own[0])
        other = students(rng, n, 0.0, questions, own[0] + own[1] if paired else own[1])
        return log_odds_difference(one, other, paired=paired)

    assert 0.92 <= coverage(draw, 1.0) <= 0.995


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_rates_hold_the_truth_as_often_as_they_say(n):
    def draw(rng: np.random.Generator) -> Interval:
        return rate_interval(students(rng, n, 0.0, 0.5 * rng.standard_normal(N_QUESTIONS), rng.standard_normal(n)))

    assert 0.92 <= coverage(draw, 0.5) <= 0.995


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_of_shares_hold_the_truth_as_often_as_they_say(n):
    def draw(rng: np.random.Generator) -> Interval:
        questions = 0.02 * rng.standard_normal(N_QUESTIONS)
        levels = rng.normal([[0.3], [0.5]], 0.08, (2, n))
        ours, reference = levels[..., None] + questions
        return transfer_share(ours, reference, 0.1 + questions)

    assert 0.92 <= coverage(draw, 0.5) <= 0.995


def group(*rates: float) -> np.ndarray:
    noise = np.linspace(-0.02, 0.02, 20)
    return np.array(rates)[:, None] + noise


def test_the_share_of_a_transfer_is_one_of_itself_none_of_the_base_and_half_between():
    base, reference = group(0.1)[0], group(0.5, 0.6, 0.7)
    own = transfer_share(reference, reference, base, paired=True)
    assert (own.value, own.low, own.high) == pytest.approx((1.0, 1.0, 1.0))
    assert transfer_share(base[None], reference, base).value == pytest.approx(0.0)
    half = transfer_share(group(0.34, 0.35, 0.36), reference, base)
    assert half.value == pytest.approx(0.5)
    assert 0.3 < half.low < half.value < half.high < 1.0
    assert half.high - half.value > half.value - half.low, "a ratio's interval is wider above"
    assert transfer_share(group(0.05), reference, base).high < 0


def test_a_share_of_what_may_be_nothing_has_no_ends():
    found = transfer_share(group(0.3, 0.4), group(0.1, 0.9), group(0.1)[0])
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_a_rate_stays_between_0_and_1_and_a_group_of_one_is_a_fixed_model():
    found = rate_interval(group(0.03, 0.05, 0.2))
    assert 0 < found.low < found.value < found.high < 1
    alone = log_odds_difference(group(0.3), group(0.1))
    assert alone.low == pytest.approx(alone.value, abs=0.2)
    assert str(mean_interval(np.array([0.3]))) == "0.30 (no interval)"


def test_pairing_by_seed_takes_the_seeds_own_spread_out_of_the_interval():
    rng = np.random.default_rng(0)
    level = np.linspace(0.2, 0.8, 5)
    one, other = (np.array([x + shift + 0.01 * rng.random(20) for x in level]) for shift in (0.1, 0.0))
    loose, paired = log_odds_difference(one, other), log_odds_difference(one, other, paired=True)
    assert paired.value == pytest.approx(loose.value)
    assert paired.low > 0 > loose.low


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def test_the_area_under_the_curve_is_that_of_every_pair_counted():
    scores, passed = column(0.1, 0.4, 0.35, 0.8), column(0, 0, 1, 1)
    assert concordance(scores, passed) == pytest.approx(0.75)
    assert concordance(-scores, passed) == pytest.approx(0.25)
    assert concordance(np.zeros(4), passed) == pytest.approx(0.5)


def test_it_is_scikit_learns_area_where_scores_are_tied():
    rng = np.random.default_rng(0)
    scores, passed = rng.integers(0, 4, 60).astype(float), rng.integers(0, 2, 60).astype(float)
    assert concordance(scores, passed) == pytest.approx(roc_auc_score(passed, scores))


def test_nothing_is_claimed_where_all_outcomes_are_the_same():
    assert np.isnan(concordance(column(1, 2, 3), np.ones(3)))
    assert np.isnan(bootstrap_interval(concordance, column(1, 2, 3), np.ones(3)).low)
    assert np.isnan(correlation(np.ones(3), column(1, 2, 3)))


def test_ranks_see_a_monotone_relation_that_a_line_does_not_fit_and_ties_share_a_rank():
    x = np.arange(1.0, 9.0)
    assert correlation(x, np.exp(x), ranks=True) == pytest.approx(1.0)
    assert correlation(x, np.exp(x)) < 0.8
    assert correlation(column(1, 1, 2, 2), column(5, 5, 7, 7), ranks=True) == pytest.approx(1.0)


def test_the_interval_of_a_perfect_predictor_is_a_point_and_that_of_noise_holds_chance():
    passed = np.repeat([0.0, 1.0], 12)
    perfect = bootstrap_interval(concordance, passed + np.linspace(0, 0.5, 24), passed)
    assert (perfect.low, perfect.value, perfect.high) == (1.0, 1.0, 1.0)
    noise = bootstrap_interval(concordance, np.random.default_rng(1).normal(size=24), passed)
    assert noise.low < 0.5 < noise.high


def test_a_coin_scores_a_quarter():
    assert brier(np.full(4, 0.5), np.array([True, False, True, False])) == pytest.approx(0.25)


def test_the_area_and_its_ties_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(2, 9, 60), rng.integers(0, 7, 80)
    found = bootstrap_interval(auroc, positive, negative, paired=False)
    judged = roc_auc_score([1] * 60 + [0] * 80, np.concatenate([positive, negative]))
    assert found.value == pytest.approx(judged)
    assert 0.5 < found.low < found.value < found.high < 1


@pytest.mark.slow
def test_the_interval_of_scores_that_know_nothing_covers_one_half():
    rng = np.random.default_rng(1)
    found = [bootstrap_interval(auroc, *rng.random((2, 40)), paired=False, seed=seed) for seed in range(40)]
    assert sum(one.low <= 0.5 <= one.high for one in found) >= 34  # 38 expected


def test_one_question_has_an_interval_of_no_length():
    assert bootstrap_interval(np.mean, np.array([0.3])) == Interval(0.3, 0.3, 0.3)


def test_p_values_under_the_null_are_uniform_and_small_where_models_differ():
    rng = np.random.default_rng(0)
    null = [swap_p(rng.standard_normal((20, 5)), seed=seed) for seed in range(100)]
    assert 0.35 < np.mean(null) < 0.65
    assert np.mean(np.array(null) < 0.1) < 0.2
    assert swap_p(rng.standard_normal((20, 5)) + 2.0) < 0.01
