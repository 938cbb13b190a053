"""The figure of the auxiliary-logits experiment shows the numbers that it is given."""

from steerlens.figures.auxiliary_plots import plot_auxiliary_logits


def student(name: str, optimizer: str, mean: float) -> dict:
    path = [{"step": 0, "loss": 0.1, "accuracy": 0.1}, {"step": 5, "loss": 0.01, "accuracy": mean}]
    accuracy = {"value": mean, "low": mean - 0.1, "high": mean + 0.2}
    return {"student": name, "optimizer": optimizer, "accuracy": accuracy, "path": path}


def test_bars_are_students_with_their_intervals_and_lines_are_the_way_of_the_same_initialisation():
    results = {
        "config": {"rates": {"Adam": 1e-3, "SGD": 3.0}},
        "teacher": {"value": 0.95},
        "untrained": {"value": 0.1},
        "students": [
            student(name, optimizer, mean)
            for optimizer, means in (("Adam", (0.1, 0.6)), ("SGD", (0.11, 0.4)))
            for name, mean in zip(("other initialisation", "same initialisation"), means, strict=True)
        ],
    }
    figure = plot_auxiliary_logits(results)
    adam, adam_path, sgd, sgd_path = figure.data
    assert [tuple(adam.y), tuple(sgd.y)] == [(0.1, 0.6), (0.11, 0.4)]
    assert abs(adam.error_y.array[1] - 0.2) + abs(adam.error_y.arrayminus[1] - 0.1) < 1e-9
    assert [list(adam_path.y), list(sgd_path.y)] == [[0.1, 0.6], [0.1, 0.4]]
    assert [adam.name, sgd.name] == ["Adam", "SGD"]
    assert sorted({line.y0 for line in figure.layout.shapes}) == [0.1, 0.95]
