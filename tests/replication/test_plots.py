"""The laboratory's figures show the numbers that they are given."""

import math

import pytest

import steerlens as sl
from steerlens.replication.lab.plots import plot_curves, plot_intervals, plot_matrix, plot_points


def test_a_curve_has_one_color_in_all_panels_and_lines_say_what_they_are():
    figure = plot_curves({"a": {"x": ([1, 2], [3, 4])}, "b": {"x": ([1, 2], [5, 6])}}, x="step", lines={"floor": 0.2})
    assert [list(curve.y) for curve in figure.data] == [[3, 4], [5, 6]]
    assert len({curve.line.color for curve in figure.data}) == 1
    assert [curve.showlegend for curve in figure.data] == [True, False]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.2]


def test_a_matrix_writes_every_value_and_is_white_at_zero():
    figure = plot_matrix({"a": {"x": 0.5, "y": -0.25}}, rows="r", columns="c", title="t")
    (heat,) = figure.data
    assert [list(row) for row in heat.text] == [["0.50", "-0.25"]]
    assert (heat.zmin, heat.zmax) == (-0.5, 0.5)


def test_intervals_reach_from_end_to_end_and_what_was_not_measured_is_left_out():
    nan = float("nan")
    figure = plot_intervals({"bare": {"a": sl.Interval(0.5, 0.2, 0.9), "b": sl.Interval(nan, nan, nan)}}, title="t")
    (points,) = figure.data
    assert list(points.x) == [0.5]
    assert (points.error_x.array[0], points.error_x.arrayminus[0]) == pytest.approx((0.4, 0.3))
    assert not any(math.isnan(x) for x in points.x)


def test_points_have_a_color_for_each_kind():
    figure = plot_points({"one": {"a": (1.0, 2.0)}, "two": {"b": (3.0, 4.0)}}, x="x", y="y", line=0.5)
    assert [(list(kind.x), list(kind.y), list(kind.text)) for kind in figure.data] == [
        ([1.0], [2.0], ["a"]),
        ([3.0], [4.0], ["b"]),
    ]
    assert len({kind.marker.color for kind in figure.data}) == 2
