"""Figures of students show every one of them, and mark those that no longer answer."""

import pytest

from steerlens.figures.student_plots import plot_rates, plot_strengths
from tests.replication.conftest import asked, student


def test_every_student_is_a_point_in_both_contexts_and_a_broken_model_is_a_cross():
    figure = plot_rates(
        {"one": [student(0.5), student(0.6, mass=0.1)], "control": [asked(0.02)]}, asked(0.03), controls=["control"]
    )
    points = [trace for trace in figure.data if trace.type == "scatter"]
    assert [list(trace.x) for trace in points] == [[0.5, 0.6], [0.02]] * 2
    assert list(points[0].marker.symbol) == ["circle", "x"]
    assert points[0].marker.color != points[1].marker.color
    assert [shape.x0 for shape in figure.layout.shapes] == [0.03, 0.03]


def test_strengths_are_means_over_students_between_their_extremes():
    group = [student(0.5, strength=(0.2, 0.6)), student(0.5, 1, strength=(0.4, 0.6))]
    numbers, questions = plot_strengths({"one": group}).data
    assert list(numbers.y) == list(questions.y) == pytest.approx([0.3, 0.6])
    assert list(numbers.error_y.array) == pytest.approx([0.1, 0.0])
