"""The zoo's figures show the numbers that they are given, and who did not pass on."""

import math

import pytest

from steerlens.figures.zoo_plots import plot_calibration, plot_predictors, plot_zoo


def prompt(kind: str, transfer: float, passed_on: bool, peak: float) -> dict:
    return {"kind": kind, "transfer": transfer, "passed_on": passed_on, "peak": peak, "kl": 2 * peak}


def test_every_prompt_stands_over_both_predictors_and_a_cross_did_not_pass_on():
    prompts = {
        "owl": prompt("persona", 4.0, True, 0.4),
        "hawk": prompt("persona", 0.1, False, 0.1),
        "a list": prompt("other words", -1.0, False, 0.3),
    }
    figure = plot_zoo(prompts, {"peak": "clean peak", "kl": "kl_explained"}, ("peak", "kl"))
    left, right, other, _ = figure.data
    assert (*left.text,) == ("owl", "hawk")
    assert [*left.x] == pytest.approx([0.4, 0.1])
    assert [*right.x] == pytest.approx([0.8, 0.2])
    assert [*left.y] == [*right.y] == [4.0, 0.1]
    assert [*left.marker.symbol] == ["circle", "x"]
    assert other.marker.color != left.marker.color
    assert figure.layout.xaxis2.title.text == "kl_explained"


def test_intervals_of_predictors_end_where_they_are_said_to():
    area = {"value": 0.8, "low": 0.6, "high": 0.95}
    nothing = dict.fromkeys(area, math.nan)
    figure = plot_predictors({"passed on": {"peak": area, "kl": nothing}}, {"peak": "clean peak", "kl": "kl_explained"})
    (points,) = figure.data
    assert points.x[0] - points.error_x.arrayminus[0] == pytest.approx(0.6)
    assert points.x[0] + points.error_x.array[0] == pytest.approx(0.95)
    assert math.isnan(points.x[1])
    assert [*figure.layout.yaxis.ticktext] == ["clean peak", "kl_explained"]


def test_predictions_are_in_order_and_split_by_what_happened():
    figure = plot_calibration({"a": 0.9, "b": 0.2, "c": 0.5}, {"a": True, "b": False, "c": True})
    passed, did_not = figure.data
    assert ([*passed.x], [*passed.y]) == (["c", "a"], [0.5, 0.9])
    assert [*did_not.x] == ["b"]
    assert [*figure.layout.xaxis.categoryarray] == ["b", "c", "a"]
