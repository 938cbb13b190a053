"""Figures of vectors show the numbers that they are given, and mark what is clean."""

import html

import pytest
import torch

from steerlens.figures.token_plots import plot_tokens
from steerlens.figures.vector_plots import plot_controls, plot_cosines, plot_prompt_fit, plot_readout, plot_sweep
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.probe import Behaviour
from steerlens.vectors.readout import Token
from steerlens.vectors.source import VectorSource
from steerlens.vectors.sweep import LayerSweep, SweepPoint
from steerlens.vectors.vector import SteeringVector

PLAIN = Behaviour(0.02, 0.8, 0.04, 0.0, 0.0, 0.0, 1.0)
GOOD = Behaviour(0.7, 0.8, 0.05, 0.01, 3.0, 0.02, 0.9)
LEAKING = Behaviour(0.8, 0.8, 0.3, 0.6, 3.0, 0.02, 0.9)


def test_prompt_fit_shows_both_methods_at_every_layer():
    by_layer = {i: LayerMetrics(0.9 - i / 10, i / 10) for i in range(3)}
    fitted, mean = plot_prompt_fit(FitMetrics(by_layer=by_layer)).data
    assert list(fitted.y) == pytest.approx([0.9, 0.8, 0.7])
    assert list(mean.y) == pytest.approx([0.0, 0.1, 0.2])


def sweep(trait: str | None = "owl") -> LayerSweep:
    """Layers 2 and 5, strengths 0.5 and 1; fitted at layer 5 and strength 1 is clean, the others leak."""
    settings = [(method, layer, s) for method in ("fitted", "random") for layer in (2, 5) for s in (0.5, 1.0)]
    points = [
        SweepPoint(
            method, layer, strength, explained := layer / 10 if method == "fitted" else -3.0, explained - 0.1,
            explained + 0.1, GOOD if (layer, strength) == (5, 1.0) else LEAKING,
        )
        for method, layer, strength in settings
    ]  # fmt: skip
    vector = SteeringVector((2, 5), torch.ones(2, 4), VectorSource("m", "by hand", prompt="love owls"))
    return LayerSweep("m", "love owls", trait, tuple(points), PLAIN, GOOD, {"fitted": vector, "random": vector})


def cells(figure, row: int, column: int, n_columns: int = 2) -> dict[tuple[str, str], float]:
    """z by (layer, strength), as the axes name them."""
    trace = figure.data[[(t.xaxis, t.yaxis) for t in figure.data].index(_axes(row, column, n_columns))]
    x_axis, y_axis = figure.get_subplot(row, column)
    x_name = dict(zip(x_axis.tickvals, x_axis.ticktext, strict=True))
    y_name = dict(zip(y_axis.tickvals, y_axis.ticktext, strict=True))
    return {(str(y_name[y]), x_name[x]): z for x, y, z in zip(trace.x, trace.y, trace.z, strict=True)}


def _axes(row: int, column: int, n_columns: int) -> tuple[str, str]:
    number = (row - 1) * n_columns + column
    return ("x", "y") if number == 1 else (f"x{number}", f"y{number}")


def test_a_sweep_shows_every_measure_where_its_axes_say():
    figure = plot_sweep(sweep())
    assert cells(figure, 1, 1) == {("2", "0.5"): 0.2, ("2", "1"): 0.2, ("5", "0.5"): 0.5, ("5", "1"): 0.5}
    assert set(cells(figure, 1, 2).values()) == {-3.0}
    assert cells(figure, 2, 1)["5", "1"] == 0.7
    assert cells(figure, 3, 1)["5", "1"] == 0.05  # the larger of negated and off topic
    assert cells(figure, 3, 1)["2", "1"] == 0.6
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-1, 1)  # white is no effect, whatever the numbers
    assert axis.colorscale[0][1] != axis.colorscale[-1][1]


def test_the_last_layer_is_on_top():
    y_axis = plot_sweep(sweep()).get_subplot(1, 1).yaxis
    assert list(y_axis.ticktext) == sorted(y_axis.ticktext)
    assert y_axis.autorange != "reversed"


def test_exactly_the_clean_settings_are_outlined_in_every_measure_and_random_ones_never():
    figure = plot_sweep(sweep())
    outlined = {(shape.xref, (shape.x0 + shape.x1) / 2, (shape.y0 + shape.y1) / 2) for shape in figure.layout.shapes}
    assert outlined == {(_axes(row, 1, 2)[0], 1.0, 1.0) for row in (1, 2, 3, 4)}


def test_hovering_tells_what_keeps_a_setting_from_being_clean():
    fitted = plot_sweep(sweep()).data[0]
    texts = dict(zip(zip(fitted.x, fitted.y, strict=True), fitted.hovertext, strict=True))
    assert "not clean: the trait shows at off-topic questions (0.60)" in texts[0, 0]
    assert texts[1, 1].endswith("<br>clean")
    assert "kl_explained 0.50 (0.40 to 0.60)" in texts[1, 1]


def test_without_a_trait_a_sweep_shows_damage_instead_of_rates():
    figure = plot_sweep(sweep(trait=None))
    titles = [figure.layout[f"coloraxis{i}"].colorbar.title.text for i in ("", 2, 3)]
    assert titles == ["kl_explained", "damage (nats)", "coherence"]


def test_controls_are_drawn_no_lower_than_minus_one_and_named_with_their_number():
    metrics = FitMetrics(
        kl_explained=0.8, kl_explained_low=0.7, kl_explained_high=0.85, kl_explained_mean_difference=0.6,
        kl_explained_random=-0.1, kl_explained_shuffled=-7.0,
    )  # fmt: skip
    bars = plot_controls(metrics).data
    assert [bar.x[0] for bar in bars] == [0.8, 0.6, -0.1, -1.0]
    assert bars[3].y[0].endswith("-700%")
    assert (bars[0].error_x.array[0], bars[0].error_x.arrayminus[0]) == pytest.approx((0.05, 0.1))
    assert [bar.error_x.array for bar in bars[1:]] == [None] * 3


def test_the_readout_runs_from_the_most_promoted_token_down_to_the_most_suppressed():
    figure = plot_readout([Token("owl", 3.0), Token(" ", 1.0)], [Token("grass", -4.0), Token("9", -2.0)])
    bars = figure.data[0]
    assert figure.layout.yaxis.autorange == "reversed"
    from_the_top = sorted(zip(bars.y, map(html.unescape, bars.text), bars.x, strict=True))
    assert [(text, x) for _, text, x in from_the_top] == [("'owl'", 3), ("' '", 1), ("'9'", -2), ("'grass'", -4)]
    assert len({*bars.marker.color[:2]}) == len({*bars.marker.color[2:]}) == 1 < len({*bars.marker.color})


def test_tags_in_tokens_traits_and_names_of_vectors_stay_text():
    tag, shown = "<a href='x'>owl</a>", "&lt;a href=&#x27;x&#x27;&gt;owl&lt;/a&gt;"
    for figure in (plot_readout([Token(tag, 3.0)], [Token("<b>", -1.0)]), plot_tokens([(tag, 2.0)])):
        assert not any("<" in text for text in figure.data[0].text)
        assert html.unescape(figure.data[0].text[0]) == repr(tag)
    assert {trace.y[0] for trace in plot_cosines({tag: (0.9, 0.1)}).data} == {shown}
    assert plot_sweep(sweep(trait=tag)).layout.coloraxis2.colorbar.title.text == f"rate of {shown}"


def test_the_nearest_vector_by_its_own_part_is_on_top():
    figure = plot_cosines({"cat": (0.9, 0.1), "owl": (0.8, 0.7), "dog": (0.85, -0.2)})
    points = {trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in figure.data if trace.name}
    assert points["raw"] == {"cat": 0.9, "owl": 0.8, "dog": 0.85}
    assert list(points["mean-centred"].items()) == [("dog", -0.2), ("cat", 0.1), ("owl", 0.7)]
