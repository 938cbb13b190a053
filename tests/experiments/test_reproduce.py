"""All experiments in one command: what is chosen runs, what fails is named, and the whole report holds the others."""

import json
import math
import re
import subprocess
import sys

import pytest

from steerlens.cli import main
from steerlens.experiments.auxiliary_logits.config import AuxiliaryConfig
from steerlens.experiments.catalogue import PRESETS, REPRODUCTION
from steerlens.experiments.claims import above, below, listed, tally
from steerlens.experiments.distillation.config import DistillationConfig
from steerlens.experiments.reproduce import reproduce
from steerlens.figures.report import write_report
from steerlens.lock import held
from tests.browser import open_report

SMALL = AuxiliaryConfig(n_models=2, width=8, teacher_steps=3, student_steps=3)


def test_an_experiment_that_fails_is_named_and_does_not_sink_the_others(tmp_path):
    configs = {"distillation": DistillationConfig(other_traits=("blue",)), "auxiliary-logits": SMALL}
    with pytest.raises(RuntimeError, match=r"1 of 2 experiments failed.*\ndistillation: other_traits: 'blue'"):
        reproduce(tmp_path, configs, lambda text: None)
    alone = (tmp_path / "auxiliary-logits" / "report.html").read_text()
    whole = (tmp_path / "report.html").read_text()
    assert "Digits from logits that are not about digits" in alone
    assert whole.count("Digits from logits that are not about digits") == 2, "in the contents, and as a chapter"
    assert "distillation failed" in whole
    assert json.loads((tmp_path / "results.json").read_text())["failures"].keys() == {"distillation"}


def test_figures_of_different_chapters_do_not_share_a_place(tmp_path):
    results = reproduce(tmp_path, {"auxiliary-logits": SMALL}, lambda text: None)
    content = results["auxiliary-logits"].content
    write_report(tmp_path / "two.html", content, {"one": content, "two": content})
    places = re.findall(r'<div id="([^"]+)" class="plotly', (tmp_path / "two.html").read_text())
    assert len(places) == 3 * sum(section.figure is not None for section in content.sections) == len(set(places))


@pytest.mark.slow
def test_the_whole_report_opens_in_a_browser_with_the_figures_of_every_chapter_drawn(tmp_path):
    configs = {"auxiliary-logits": SMALL, "distillation": DistillationConfig(other_traits=("blue",))}
    with pytest.raises(RuntimeError, match="1 of 2 experiments failed"):
        reproduce(tmp_path, configs, lambda text: None)
    opened = open_report(tmp_path / "report.html")
    assert opened.errors == []
    assert len(opened.drawn) == 1
    assert all(opened.drawn)


def test_a_flag_that_no_chosen_experiment_has_is_refused_before_anything_is_computed(tmp_path, capsys):
    command = ["reproduce", "--only", "auxiliary-logits", "--sgd-rates", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 1
    assert "--sgd-rates means nothing to auxiliary-logits" in capsys.readouterr().err
    assert not (tmp_path / "run" / "auxiliary-logits").exists()


def test_what_could_not_be_measured_is_neither_called_true_nor_false():
    claims = [above("one", "", 0.5, 0.4), below("two", "", math.nan, 0.4), below("three", "", 0.5, 0.4)]
    assert [claim.verdict for claim in claims] == ["holds", "not measured", "does not hold"]
    assert tally(claims) == "1 of 3 claims hold; 1 could not be measured."
    lines = listed({claim.name: claim for claim in claims}).splitlines()
    assert lines[1] == "one       0.500      0.400  holds"
    assert lines[2].endswith("nan      0.400  not measured")


def test_experiments_without_claims_hold_and_end_with_their_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(REPRODUCTION["auxiliary-logits"].presets, "quick", SMALL)
    assert main(["reproduce", "--only", "auxiliary-logits", "--out", str(tmp_path)]) == 0
    assert f"Report: {tmp_path / 'report.html'}" in capsys.readouterr().out


def test_every_experiment_has_both_presets_and_says_how_long_they_take():
    assert PRESETS["full"] == tuple(REPRODUCTION)
    for name, experiment in REPRODUCTION.items():
        assert experiment.presets.keys() == experiment.minutes.keys() == {"quick", "full"}, name
        assert 0 < experiment.minutes["quick"] <= experiment.minutes["full"], name


def test_two_runs_in_one_directory_are_refused_from_python_as_well(tmp_path):
    with held(tmp_path / ".lock"):
        program = (
            "from steerlens.experiments.auxiliary_logits.config import AuxiliaryConfig\n"
            "from steerlens.experiments.auxiliary_logits.experiment import run_auxiliary_logits\n"
            f"run_auxiliary_logits({str(tmp_path)!r}, AuxiliaryConfig(n_models=2))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "BlockingIOError: Another run is writing here" in done.stderr
    assert not (tmp_path / "results.json").exists()
