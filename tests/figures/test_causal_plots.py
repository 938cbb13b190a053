"""The figures on cause show the numbers that they are given."""

import pytest

from steerlens.figures.causal_plots import (
    plot_conditions,
    plot_distilled,
    plot_dose,
    plot_matrix,
    plot_teachers_and_students,
)


def record(rate: float, mass: float = 0.9) -> dict:
    return {"rate": rate, "rate_prefixed": rate / 2, "mass": mass}


def test_a_model_that_no_longer_answers_is_a_cross_and_bars_are_means():
    groups = {"prompted": [record(0.6), record(0.2, mass=0.1)], "control": [record(0.0)]}
    figure = plot_conditions(groups, {"rate": 0.02, "rate_prefixed": 0.03}, {"prompted": "#c1440e"})
    points = [trace for trace in figure.data if trace.type == "scatter"]
    bars = [trace.x[0] for trace in figure.data if trace.type == "bar"]
    assert [*points[0].marker.symbol] == ["circle", "x"]
    assert bars == pytest.approx([0.4, 0.0, 0.2, 0.0])
    assert [*figure.layout.yaxis.ticktext] == ["prompted", "control"]


def arm(effect: float, value: float) -> dict:
    measured = {"value": value, "low": value - 0.1, "high": value + 0.2}
    return {"effect_on_lists": effect, "share": measured, "minus_base": measured, "own_minus_base": 2.0}


def test_students_stand_over_their_own_teacher_and_far_off_effects_at_the_edge():
    arms = {"prompted": arm(1.0, 0.9), "added: v": arm(-7.0, 0.1)}
    figure = plot_teachers_and_students(arms, {"prompted": "no vector", "added: v": "vector added"})
    left = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert (left["no vector"].x[0], left["no vector"].y[0]) == (1.0, 0.9)
    assert (left["vector added"].x[0], left["vector added"].y[0]) == (-1.0, 0.1)
    assert left["no vector"].error_y.array[0] == pytest.approx(0.2)
    assert left["no vector"].error_y.arrayminus[0] == pytest.approx(0.1)


def test_the_matrix_keeps_rows_and_columns_apart():
    figure = plot_matrix({"a": {"a": 1.0, "b": 0.0}, "b": {"a": 0.25, "b": -2.0}}, rows="r", columns="c", title="t")
    (heatmap,) = figure.data
    assert heatmap.z[1][0] == 0.25
    assert heatmap.text[1][1] == "-2.00"
    assert heatmap.zmax == -heatmap.zmin == 2.0


def test_kinds_of_vectors_have_a_legend_entry_each():
    arms = {
        "owl": {"kind": "semantic", "eas": [0.8, 0.6], "answers_moved": 0.5},
        "random 1": {"kind": "random", "eas": [0.7], "answers_moved": 0.1},
    }
    semantic, random = plot_distilled(arms, 0.02).data
    assert (semantic.name, semantic.x[0], semantic.y[0]) == ("semantic", pytest.approx(0.7), 0.5)
    assert random.text[0] == "random 1"


def test_what_students_took_over_is_in_units_of_the_full_vector_at_every_dose():
    points = [
        {"strength": dose, "rates": [0.1, 0.3], "steered": 0.5, "strength_numbers": 0.4, "strength_questions": 0.2}
        for dose in (0.5, 1.0)
    ]
    lines = {trace.name: trace for trace in plot_dose(points, 0.02).data if trace.name}
    assert [*lines["students"].y] == pytest.approx([0.2, 0.2])
    assert [*lines["at number tasks"].y] == pytest.approx([0.2, 0.4])
