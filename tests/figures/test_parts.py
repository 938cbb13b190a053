"""A figure takes a result whole and shows what it shows of the part."""

import numpy as np
import pytest
import torch

from steerlens.figures.plots import plot_gradient_projection, plot_steps
from steerlens.figures.token_plots import plot_tokens
from steerlens.figures.vector_plots import plot_controls, plot_cosines, plot_prompt_fit, plot_readout
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace
from steerlens.vectors.analysis import PromptAnalysis, Transfer
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.probe import Behaviour
from steerlens.vectors.readout import Token
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

N_LAYERS = 80
METRICS = FitMetrics(*[0.5] * 7, by_layer={i: LayerMetrics(i / 100, 0.1) for i in range(N_LAYERS)})
VECTOR = SteeringVector((3,), torch.eye(4)[:1], VectorSource("m", "by hand", prompt="love owls"), METRICS)
UP, DOWN = [Token("owl", 3.0), Token("Owl", 1.0)], [Token("grass", -4.0), Token("9", -2.0)]
ANALYSIS = PromptAnalysis(
    vector=VECTOR,
    promoted=tuple(UP),
    suppressed=tuple(DOWN),
    cosines={"cat": (0.9, 0.1), "owl": (0.8, 0.7)},
    numbers=None,
    plain=Behaviour(),
    prompted=Behaviour(),
    steered=Behaviour(),
    transfer=Transfer("likely", ()),
)


@pytest.mark.parametrize(
    ("plot", "whole", "part"),
    [
        (plot_prompt_fit, VECTOR, METRICS),
        (plot_prompt_fit, ANALYSIS, METRICS),
        (plot_controls, VECTOR, METRICS),
        (plot_controls, ANALYSIS, METRICS),
        (plot_tokens, ANALYSIS, [("owl", 3.0), ("Owl", 1.0), ("9", -2.0), ("grass", -4.0)]),
        (plot_tokens, (UP, DOWN), [*UP, *reversed(DOWN)]),
        (plot_readout, ANALYSIS, (UP, DOWN)),
        (plot_cosines, ANALYSIS, ANALYSIS.cosines),
    ],
)
def test_the_whole_is_drawn_as_its_part(plot, whole, part):
    assert plot(whole) == plot(part)


def test_of_eighty_layers_few_have_a_tick():
    axis = plot_prompt_fit(VECTOR).layout.xaxis
    assert N_LAYERS / axis.dtick <= 16
    assert len(plot_prompt_fit(VECTOR).data[0].x) == N_LAYERS


def test_vectors_are_compared_with_each_other():
    other = SteeringVector((3,), torch.tensor([[3.0, 4.0, 0, 0]]), VectorSource("m", "by hand"))
    (heat,) = plot_cosines({"owl": VECTOR, "<b>cat": other}).data
    assert np.array(heat.z) == pytest.approx(np.array([[1.0, 0.6], [0.6, 1.0]]))
    assert heat.x == ("owl", "&lt;b&gt;cat")


def test_a_trace_alone_needs_neither_a_name_nor_its_only_layer():
    values = torch.linspace(0, 1, 12).reshape(4, 3, 1)
    alone = GradientTrace((5,), values, values, values)
    assert plot_gradient_projection(alone).data[1].y == pytest.approx(
        plot_gradient_projection({"a": [alone]}, layer=5).data[1].y
    )
    steps = StepTrace((5,), ("numbers",), (0, 1), torch.ones(2, 1, 1))
    (line,) = plot_steps(steps).data
    assert (line.name, list(line.y)) == ("at numbers", [1.0, 2.0])
    two = GradientTrace((5, 6), *[values.repeat(1, 1, 2)] * 3)
    with pytest.raises(ValueError, match=r"Several layers were measured. Say which: layer=, one of \(5, 6\)"):
        plot_gradient_projection(two)
