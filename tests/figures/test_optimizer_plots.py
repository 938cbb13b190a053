"""Figures of the optimizer comparison show the numbers that they are given, and mark what is broken or compared."""

import numpy as np
import pytest
import torch

from steerlens.figures.optimizer_plots import (
    plot_differences,
    plot_loss_curves,
    plot_norm_tails,
    plot_pooled,
    plot_projections,
    plot_rate_over_strength,
)
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace


def run(rate: float, loss: float | None, *, divergent: bool = False) -> dict:
    return {
        "optimizer": "sgd", "learning_rate": rate, "heldout_loss": loss, "divergent": divergent,
        "rate": 0.3, "strength_questions": rate,
    }  # fmt: skip


RUNS = [run(1.0, 3.0), run(1.0, 3.2), run(2.0, 3.0), run(4.0, 9.0, divergent=True), run(8.0, None, divergent=True)]


def test_curves_are_means_over_seeds_divergent_runs_are_crosses_within_the_figure_and_the_compared_rate_a_star():
    figure = plot_loss_curves(RUNS, {"sgd": 2.0}, 3.0, 0.01)
    line, broken, star = figure.data
    assert list(line.x) == [1.0, 2.0]
    assert list(line.y) == pytest.approx([3.1, 3.0])
    assert broken.marker.symbol == "x"
    assert list(broken.x) == [4.0, 8.0]
    assert 3.2 < broken.y[0] == broken.y[1] < 3.3
    assert (star.marker.symbol, star.x[0], star.y[0]) == ("star", 2.0, 3.0)


def test_an_optimizer_of_which_every_run_diverged_has_no_star():
    figure = plot_loss_curves(
        [*RUNS, run(1.0, None, divergent=True) | {"optimizer": "wild"}], {"wild": None}, 3.0, 0.01
    )
    assert [trace.marker.symbol for trace in figure.data] == [None, "x"]


def test_divergent_runs_are_no_points_of_the_rate():
    (points,) = plot_rate_over_strength(RUNS, 0.02).data
    assert list(points.x) == [1.0, 1.0, 2.0]


def test_gradients_and_steps_of_seeds_are_averaged_at_the_layer_and_probe_that_the_panel_names():
    def trace(level: float) -> GradientTrace:
        values = torch.stack([torch.full((40, 3), 9.0), torch.full((40, 3), level)], dim=-1)
        return GradientTrace((1, 3), values, values, values)

    def step(level: float) -> StepTrace:
        return StepTrace((1, 3), ("numbers", "questions"), (0, 20), torch.tensor([[[9.0, level], [9.0, -level]]] * 2))

    figure = plot_projections({"sgd": [trace(0.1), trace(0.3)]}, {"sgd": [step(1.0), step(2.0)]}, layer=3)
    lines = {line.xaxis: line for line in figure.data if line.fill is None}
    assert np.array(lines["x"].y) == pytest.approx(np.full(40, 0.2), abs=1e-6)
    assert list(lines["x2"].x) == [0, 20]
    assert list(lines["x2"].y) == pytest.approx([1.5, 1.5])
    assert list(lines["x3"].y) == pytest.approx([-1.5, -1.5])


def test_a_heavier_tail_lies_to_the_right():
    rng = np.random.default_rng(0)
    light, heavy = np.abs(rng.normal(size=5000)), rng.pareto(1.5, 5000)
    heavy[:10] = np.nan
    figure = plot_norm_tails({"light": light, "heavy": heavy})
    far = {line.name: line.x[np.argmin(np.abs(np.array(line.y) - 1e-3))] for line in figure.data}
    assert far["heavy"] > 3 * far["light"]
    assert far["light"] == pytest.approx(far["|Gaussian|"], rel=0.2)


def test_the_pooled_curve_stands_between_its_nulls_at_the_layer_asked_for():
    band = {"mean": [[0.1, 0.2], [0.3, 0.4]], "low": [[0.0, 0.1], [0.2, 0.3]], "high": [[0.2, 0.3], [0.4, 0.5]]}
    figure = plot_pooled(
        {"layers": [0, 2], "sizes": [1, 64], "observed": band, "shuffled": band, "random": band}, layer=2
    )
    line = next(trace for trace in figure.data if trace.name == "observed")
    assert list(line.y) == [0.2, 0.4]
    assert list(figure.data[0].y) == [0.3, 0.5, 0.3, 0.1]


def test_differences_carry_their_intervals_in_both_contexts():
    found = {"value": -1.0, "low": -1.5, "high": -0.2}
    bare, prefixed = plot_differences({"sgd": {"bare": found, "prefixed": found | {"value": 0.0}}}, "difference").data
    assert (bare.x[0], prefixed.x[0]) == (-1.0, 0.0)
    assert bare.error_x.array[0] == pytest.approx(0.8)
    assert bare.error_x.arrayminus[0] == pytest.approx(0.5)
