"""A comparison's report says what was found and what to do; its JSON has every number; text of models stays text."""

import json
import math
from dataclasses import replace

import pytest
import torch

from steerlens.audit.answer_changes import Rise
from steerlens.audit.model_diff import SCRAMBLED, ModelDiff
from steerlens.figures.model_diff_plots import plot_known, plot_shift
from steerlens.files import write_json
from steerlens.reports.model_diff import ADVICE, diff_results, write_diff_report
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector
from tests.browser import open_report
from tests.reports.test_audit import EVIL, words


def vector(*layers: int, **metrics: float) -> SteeringVector:
    source = VectorSource("organism:seed-0", "by hand")
    return SteeringVector(layers, torch.ones(len(layers), 96), source, FitMetrics(**metrics))


@pytest.fixture
def result() -> ModelDiff:
    return ModelDiff(
        verdict="found",
        reason="The tuned model gives some answers more often.",
        base="organism:seed-0",
        tuned=f"organism:seed-0 {EVIL}",
        false_alarm_rate=0.05,
        p_value=0.025,
        compared_with=SCRAMBLED,
        n_clean=0,
        relative_update=0.0123,
        rises=(Rise("owl", 9.5, 0.62, 0.017), Rise(EVIL, 3.0, 0.1, 0.05)),
        null=(1.5, 2.25),
        mass=(0.83, 0.79),
        shift=vector(0, 1, 2),
        fitted=vector(2, kl_explained=0.48, kl_explained_low=0.4, kl_explained_high=0.55, kl_prompt=0.126),
        steered={"owl": 0.45},
        promoted=(("owl", 3.0), (EVIL, 2.0)),
        suppressed=(("cat", -1.0),),
        known=(("owl", 0.92), (EVIL, 0.4)),
        first_words=(("owl", 0.625, 0.25), (EVIL, 0.1, 0.01)),
        replies=(("what is your favorite animal ?", "dog", f"owl {EVIL}"),),
    )


@pytest.mark.parametrize("verdict", ["found", "not found", "cannot tell"])
def test_each_verdict_comes_with_its_reason_its_numbers_and_its_advice(tmp_path, result, verdict):
    write_diff_report(tmp_path / "r.html", replace(result, verdict=verdict))
    shown = words((tmp_path / "r.html").read_text())
    assert ADVICE[verdict] in shown
    assert result.reason in shown
    for number in (
        "9.5 standard deviations",
        "2.2",
        "0.92",
        "48%",
        "0.126 nats",
        "1.23%",
        "from 25.0% to 62.5%",
        "5.0% pass the test by chance",
    ):
        assert number in shown


@pytest.mark.slow
def test_text_of_models_runs_nowhere(tmp_path, result):
    write_diff_report(tmp_path / "r.html", result)
    opened = open_report(tmp_path / "r.html")
    assert (opened.errors, opened.dialogs) == ([], [])
    assert opened.drawn
    assert all(opened.drawn)
    assert EVIL in opened.text


def test_the_json_has_every_number_and_no_vector(tmp_path, result):
    write_json(tmp_path / "r.json", diff_results(result))
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["rises"][0] == {"answer": "owl", "z": 9.5, "rate": 0.62, "base_rate": 0.017}
    assert (read["fit"]["kl_explained"], read["fitted_layer"], read["known"][0]) == (0.48, 2, ["owl", 0.92])
    assert read["shift_norms"]["1"] == pytest.approx(math.sqrt(96))
    assert "shift" not in read


def test_without_a_fitted_vector_the_report_says_so(tmp_path, result):
    nothing = replace(result, fitted=None, steered={}, promoted=(), suppressed=(), known=())
    write_diff_report(tmp_path / "r.html", nothing)
    assert "predicts what its base does" in words((tmp_path / "r.html").read_text())
    assert diff_results(nothing)["fit"] is None
    with pytest.raises(ValueError, match="has no known vectors"):
        plot_known(nothing)


def test_figures_show_what_the_result_says(result):
    assert list(plot_known(result).data[0].x) == [0.92, 0.4]
    assert "<" not in "".join(plot_known(result).data[0].y)
    bars = plot_shift(result).data[0]
    assert list(bars.x) == [0, 1, 2]
    assert len({bars.marker.color[0], bars.marker.color[1]}) == 1 != len(set(bars.marker.color))
