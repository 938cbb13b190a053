"""Intervals hold the truth as often as they say, for the few students that experiments have."""

from collections.abc import Callable

import numpy as np
import pytest

from steerlens.experiments.rates import (
    Interval,
    Record,
    log_odds_difference,
    matched,
    mean_interval,
    rate_interval,
    transfer_share,
)

N_DATASETS, N_QUESTIONS = 400, 20


def sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def students(rng: np.random.Generator, n: int, level: float, questions: np.ndarray, own: np.ndarray) -> list[Record]:
    """`n` students whose log odds are a level, one effect each of the student and the question, and noise."""
    odds = level + own[:n, None] + questions + 0.5 * rng.standard_normal((n, N_QUESTIONS))
    return [{"shares": sigmoid(row).tolist()} for row in odds]


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
        ours, reference = ([{"shares": level + questions} for level in group] for group in levels)
        return transfer_share(ours, reference, {"shares": 0.1 + questions})

    assert 0.92 <= coverage(draw, 0.5) <= 0.995


def group(*rates: float) -> list[Record]:
    noise = np.linspace(-0.02, 0.02, 20)
    return [{"shares": (rate + noise).tolist()} for rate in rates]


def test_the_share_of_a_transfer_is_one_of_itself_none_of_the_base_and_half_between():
    base, reference = group(0.1)[0], group(0.5, 0.6, 0.7)
    own = transfer_share(reference, reference, base, paired=True)
    assert (own.value, own.low, own.high) == pytest.approx((1.0, 1.0, 1.0))
    assert transfer_share([base], reference, base).value == pytest.approx(0.0)
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
    assert mean_interval(np.array([0.3])) == Interval(0.3, 0.3, 0.3)


def test_pairing_by_seed_takes_the_seeds_own_spread_out_of_the_interval():
    rng = np.random.default_rng(0)
    level = np.linspace(0.2, 0.8, 5)
    one = [{"shares": (x + 0.1 + 0.01 * rng.random(20)).tolist()} for x in level]
    other = [{"shares": (x + 0.01 * rng.random(20)).tolist()} for x in level]
    loose, paired = log_odds_difference(one, other), log_odds_difference(one, other, paired=True)
    assert paired.value == pytest.approx(loose.value)
    assert paired.low > 0 > loose.low


def test_only_groups_of_equal_or_lower_loss_that_still_answer_match_with_all_their_students():
    def record(loss: float, mass: float = 0.9) -> Record:
        return {"heldout_loss": loss, "mass": mass}

    reference = [record(3.0), record(3.02)]
    groups = {
        0.1: [record(3.0), record(3.03)],
        0.2: [record(3.0), record(3.1)],
        0.3: [record(2.5), record(2.4)],
        0.4: [record(3.0, 0.1), record(3.0, 0.2)],
    }
    assert matched(groups, reference, 0.01) == {0.1: groups[0.1], 0.3: groups[0.3]}
