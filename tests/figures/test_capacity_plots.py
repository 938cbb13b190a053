"""The figures on capacity show the numbers that they are given."""

from steerlens.figures.capacity_plots import plot_grid, plot_in_contexts


def test_each_number_of_rows_has_a_panel_each_rank_a_line_and_a_broken_student_a_cross():
    def row(*arms: tuple[float, float]) -> dict:
        return {rate: {"rate": r, "mass": mass} for rate, (r, mass) in zip(("0.01", "0.1"), arms, strict=True)}

    grid = {
        "1920": {"1": row((0.1, 0.9), (0.4, 0.8)), "4": row((0.6, 0.8), (0.3, 0.1))},
        "480": {"1": row((0.05, 0.9), (0.2, 0.8))},
    }
    first, broken, fewer = plot_grid(grid, 0.02).data
    assert ([*first.x], [*first.y]) == ([0.01, 0.1], [0.1, 0.4])
    assert [*broken.marker.symbol] == ["circle", "x"]
    assert (fewer.name, [*fewer.y]) == ("rank 1", [0.05, 0.2])
    assert fewer.xaxis != first.xaxis
    assert fewer.line.color == first.line.color


def test_student_and_base_stand_side_by_side_under_each_system_prompt():
    contexts = {
        "as trained": {"student": {"rate": 0.6, "rate_prefixed": 0.4}, "base": {"rate": 0.02, "rate_prefixed": 0.03}},
        "another": {"student": {"rate": 0.1, "rate_prefixed": 0.2}, "base": {"rate": 0.01, "rate_prefixed": 0.05}},
    }
    student, base, student_after, base_after = plot_in_contexts(contexts).data
    assert ([*student.x], [*student.y]) == (["as trained", "another"], [0.6, 0.1])
    assert [*base.y] == [0.02, 0.01]
    assert [*student_after.y] == [0.4, 0.2]
    assert [*base_after.y] == [0.03, 0.05]
