"""Figures show the numbers that they are given, and the report escapes what it is told."""

import numpy as np
import pytest
import torch

from steerlens.figures.plots import (
    plot_gradient_projection,
    plot_pooled_cosine,
    plot_steps,
)
from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.gradients.pooled import PooledCosine
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace


def trace(level: float) -> GradientTrace:
    values = torch.full((40, 3, 2), level)
    values[-1, 2] = torch.nan
    return GradientTrace((1, 3), values, values.clone(), values.abs())


def test_gradient_curves_are_means_over_rows_and_running_sums():
    figure = plot_gradient_projection({"AdamW": [trace(0.1), trace(0.3)], "SGD": [trace(0.0)]}, layer=3)
    lines = {(line.name, line.xaxis): np.array(line.y) for line in figure.data if line.name}
    assert lines["AdamW", "x"] == pytest.approx(np.full(40, 0.2), abs=1e-6)
    assert lines["AdamW", "x2"] == pytest.approx(0.2 * np.arange(1, 41), abs=1e-5)
    assert lines["SGD", "x2"] == pytest.approx(np.zeros(40))


def test_pooled_cosines_are_medians_with_their_central_95_percent_at_the_layer_asked_for():
    draws = torch.linspace(0, 1, 201)[:, None, None].expand(201, 2, 2) * torch.tensor([[1.0, 0.1], [1.0, 0.4]])
    pooled = PooledCosine((1, 3), (8, 64), draws, draws - 0.5, -draws)
    figure = plot_pooled_cosine(pooled, layer=3)
    lines = {line.name: line for line in figure.data if line.name}
    bands = {band.legendgroup: np.array(band.y) for band in figure.data if not band.name}
    assert list(lines["teacher minus control"].x) == [8, 64]
    assert lines["teacher minus control"].y == pytest.approx([0.05, 0.2], abs=1e-6)
    assert bands["teacher minus control"] == pytest.approx([0.0975, 0.39, 0.01, 0.0025], abs=1e-5)  # out and back
    assert lines["teacher and control shuffled"].y == pytest.approx([-0.45, -0.3], abs=1e-6)
    assert bands["random directions"] == pytest.approx([-0.0025, -0.01, -0.39, -0.0975], abs=1e-5)
    with pytest.raises(ValueError, match=r"layer=2 was not measured\. Choose one of \(1, 3\)"):
        plot_pooled_cosine(pooled, layer=2)


def test_steps_are_added_up_for_each_probe_at_the_layer_asked_for():
    along = torch.tensor([[[9.0, 1.0], [9.0, -1.0]], [[9.0, 2.0], [9.0, 0.5]]])  # [step probe layer]
    traces = {"teacher": StepTrace((0, 2), ("numbers", "questions"), (0, 5), along)}
    traces["control"] = StepTrace((2,), ("numbers",), (0, 5), torch.zeros(2, 1, 1))
    lines = {line.name: line for line in plot_steps(traces, layer=2).data}
    assert {name: list(line.y) for name, line in lines.items()} == {
        "teacher, at numbers": [1.0, 3.0],
        "teacher, at questions": [-1.0, -0.5],
        "control, at numbers": [0.0, 0.0],
    }
    assert list(lines["teacher, at numbers"].x) == [0, 5]
    assert len({(line.line.color, line.line.dash) for line in lines.values()}) == 3
    with pytest.raises(ValueError, match=r"layer=0 was not measured of 'control'\. Choose one of \(2,\)"):
        plot_steps(traces, layer=0)


def test_the_report_is_one_file_without_network_and_escapes_every_text(tmp_path):
    evil = "<script>alert(1)</script>"
    section = Section(
        evil, evil, None, evil, evil, evil, Table((evil,), ((evil,), ("holds",), (True,), (0.12345,))), (evil,)
    )
    write_report(tmp_path / "r.html", Report(evil, evil, [section]), {evil: Report(evil, evil, [section])})
    text = (tmp_path / "r.html").read_text()
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 23
    body = text.split("</style>")[1].split("<body>")[1]
    assert "<script" not in body
    assert "src=" not in body
    assert 'class="holds">holds<' in body
    assert ">yes<" in body
    assert "0.123<" in body
