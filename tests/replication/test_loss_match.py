"""The search finds the learning rate of a given loss on curves whose answer is known, and says so where there is none."""

import math

import pytest

from steerlens.replication.lab.loss_match import Match, closest, matching_rates, next_rate, search_rates, settle

REFERENCE, TOLERANCE = 3.0, 0.005


def valley(rate: float, *, best: float, floor: float, edge: float = math.inf) -> float:
    """Loss that falls and rises with the log of the rate, and diverges above `edge`."""
    return math.inf if rate > edge else floor + 0.1 * math.log10(rate / best) ** 2


def searched(loss, grid=(1e-3, 1e-1, 10.0), budget=8):
    asked = []

    def measure(pairs):
        asked.extend(rate for _, rate in pairs)
        return [loss(rate) for _, rate in pairs]

    curve = search_rates({"one": grid}, measure, REFERENCE, TOLERANCE, budget)["one"]
    assert sorted(curve) == sorted(asked), "no rate is trained twice"
    return curve


@pytest.mark.parametrize("best", [3e-3, 0.2, 4.0])
def test_a_valley_that_crosses_the_reference_is_matched_at_the_crossing_of_the_larger_rate(best):
    curve = searched(lambda rate: valley(rate, best=best, floor=2.9))
    (rate, *_) = matching_rates(curve, REFERENCE, TOLERANCE)
    assert abs(curve[rate] - REFERENCE) <= TOLERANCE
    assert rate == pytest.approx(10 * best, rel=0.15) or max(curve) < 10 * best


def test_a_cliff_of_divergence_above_the_reference_is_a_bracket_and_never_a_match():
    curve = searched(lambda rate: valley(rate, best=1.0, floor=2.999, edge=0.9), grid=(1e-3, 1e-2, 10.0))
    (rate, *_) = matching_rates(curve, REFERENCE, TOLERANCE)
    assert rate <= 0.9
    assert not any(math.isinf(curve[rate]) for rate in matching_rates(curve, REFERENCE, TOLERANCE))


def test_a_curve_below_the_reference_is_followed_to_smaller_rates():
    curve = searched(lambda rate: valley(rate, best=1.0, floor=2.9), grid=(0.5, 1.0, 2.0))
    assert matching_rates(curve, REFERENCE, TOLERANCE)[0] == pytest.approx(0.1, rel=0.2)


def test_without_a_match_the_budget_is_kept_and_the_closest_run_is_named():
    curve = searched(lambda rate: valley(rate, best=0.3, floor=3.2), budget=4)
    assert len(curve) == 3 + 4
    assert matching_rates(curve, REFERENCE, TOLERANCE) == []
    nearest = closest(curve, REFERENCE)
    assert not nearest.matched
    assert nearest.loss == min(curve.values()) == pytest.approx(3.2, abs=0.02)
    assert closest({0.1: math.inf}, REFERENCE).rate is None


def test_an_optimizer_whose_grid_diverges_is_tried_lower():
    assert next_rate({1.0: math.inf, 2.0: math.inf}, REFERENCE, TOLERANCE) == 0.25


def test_all_seeds_decide_and_a_rate_at_which_one_diverges_gives_way_to_the_next_smaller_one():
    curves = {"steady": {0.1: 3.001, 1.0: 2.999}, "brittle": {0.1: 3.001, 1.0: 2.999}, "worse": {1.0: 3.2}}
    over_seeds = {("steady", 1.0): 3.002, ("brittle", 1.0): math.inf, ("brittle", 0.1): 3.003}
    asked = []

    def measure(pairs):
        asked.extend(pairs)
        return [over_seeds[pair] for pair in pairs]

    found = settle(curves, measure, REFERENCE, TOLERANCE)
    assert found == {
        "steady": Match(1.0, 3.002, True),
        "brittle": Match(0.1, 3.003, True),
        "worse": Match(1.0, 3.2, False),
    }
    assert sorted(asked) == sorted(over_seeds)
