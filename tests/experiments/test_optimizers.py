"""The optimizer comparison keeps its promises: resumed as it would have run, divergent runs are never successes."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steerlens.experiments.cells import held_at_start
from steerlens.experiments.optimizers.cells import is_divergent, loss_of, needs_scales, plan_cell, with_odd_rows
from steerlens.experiments.optimizers.config import ARMS, OPTIMIZER_PRESETS, REFERENCE, OptimizersConfig
from steerlens.experiments.optimizers.experiment import reference_loss
from steerlens.experiments.optimizers.findings import against_the_paper
from steerlens.experiments.optimizers.loss_match import Match
from steerlens.experiments.optimizers.parts import PARTS, strongest, switched
from steerlens.experiments.optimizers.results import COLUMNS, deciding, matched_arms
from steerlens.experiments.run import Run
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts

COMMAND = """
import sys
from dataclasses import replace
from steerlens.experiments.optimizers.config import Arm, OptimizersConfig
from steerlens.experiments.optimizers.experiment import run_optimizers
if __name__ == "__main__":
    config = OptimizersConfig(
        n_prompts=200, n_heldout=24, seeds=(0,), curve_seeds=1, budget=1, workers=1, loss_tolerance=1e-5,
        arms={"adamw": Arm((3e-3,)), "sgd, not clipped": Arm((1.0, 1e6), {"optimizer": "sgd", "clip_norm": None})},
        pooled_sizes=(1, 16),
    )
    config = replace(config, train=replace(config.train, epochs=1, learning_rate=3e-3))
    run_optimizers(sys.argv[1], config)
"""
BASE = {"mass": 0.8, "heldout_loss": 3.3}


def start(directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_killed_comparison_goes_on_reports_every_run_and_counts_no_divergent_one(tmp_path):
    directory = tmp_path / "run"
    with start(directory) as process:
        while process.poll() is None and not list(directory.glob("students/*/record.json")):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    (record,) = list(directory.glob("students/*/record.json"))
    written = record.stat().st_mtime_ns
    assert not (directory / "results.json").exists()
    with start(directory) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    assert record.stat().st_mtime_ns == written, "a finished student is not trained again"

    results = json.loads((directory / "results.json").read_text())
    table = list(csv.DictReader((directory / "runs.csv").read_text().splitlines()))
    assert [row["name"] for row in table] == [row["name"] for row in results["runs"]]
    assert tuple(table[0]) == COLUMNS
    wild = [row for row in results["runs"] if row["learning_rate"] == 1e6]
    assert [row["divergent"] for row in wild] == [True]
    assert not any(row["matched"] for row in wild)
    sgd = results["arms"]["sgd, not clipped"]
    assert sgd["rate"] != 1e6
    assert results["arms"][REFERENCE]["matched"]
    assert {row["learning_rate"] for row in results["runs"] if row["optimizer"] != REFERENCE} > {1.0, 1e6}
    assert "divergent" in (directory / "report.html").read_text()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"heldout_loss": 3.2, "mass": 0.7}, False),
        ({"heldout_loss": 3.2, "mass": 0.39}, True),
        ({"heldout_loss": 3.31, "mass": 0.7}, True),
        ({"heldout_loss": None, "mass": None}, True),
    ],
)
def test_a_run_that_no_longer_answers_or_predicts_worse_than_untrained_is_divergent(record, expected):
    assert is_divergent(record, BASE) is expected
    good = {"heldout_loss": 3.2, "mass": 0.8}
    assert math.isinf(loss_of([good, record], BASE)) is expected


def test_every_arm_of_every_preset_is_a_student_of_its_own_that_can_be_configured(tmp_path):
    for config in OPTIMIZER_PRESETS.values():
        run = Run(config, tmp_path)
        cells = [plan_cell(run, name, rate, 0) for name, arm in config.arms.items() for rate in arm.rates]
        assert len({cell.name for cell in cells}) == len(cells)
        for cell in cells:
            assert (cell.train.scales is not None) == needs_scales(config.arms[cell.role])
            assert (cell.samples.name == "teacher.jsonl") == (config.arms[cell.role].odd_share == 0)
    assert len({cell.train.optimizer for cell in cells}) == 8, "the full preset has every optimizer"


def test_a_comparison_without_its_reference_is_refused():
    with pytest.raises(ValueError, match="has no 'adamw', whose loss the others have to match"):
        OptimizersConfig(arms={"sgd": ARMS["sgd"]})
    with pytest.raises(ValueError, match=r"curve_seeds=3 is not in 1..2"):
        OptimizersConfig(seeds=(0, 1), curve_seeds=3)


def test_a_reference_that_diverges_is_explained():
    config, broken = OPTIMIZER_PRESETS["quick"], {"heldout_loss": 4.0, "mass": 0.0}
    with pytest.raises(ValueError, match=r"'adamw' diverges at learning_rate=0.03 with some seed.*smaller"):
        reference_loss(config, [broken], BASE)


def test_matched_arms_leave_out_what_has_another_loss_whatever_its_rate():
    arms = {
        "sgd": {"matched": True, "mean_rate": 0.2},
        "muon": {"matched": False, "mean_rate": 0.9},
        "rmsprop": {"matched": True, "mean_rate": 0.5},
        REFERENCE: {"matched": True, "mean_rate": 0.4},
    }
    assert matched_arms({"arms": arms}) == [REFERENCE, "rmsprop", "sgd"]


def findings(kurtosis: float = 3.0, **arms: dict) -> str:
    reference = {"optimizer": "adamw", "matched": True, "mean_rate": 0.6, "rate": 0.03}
    spread = {"lowest_rate_at_this_loss": 0.1, "highest_rate_at_this_loss": 0.9}
    results = {
        "base": {"rate": 0.02},
        "loss_tolerance": 0.005,
        "arms": {REFERENCE: reference | spread, **arms},
        "runs": [{"optimizer": REFERENCE, "compared": True, "kurtosis": kurtosis}],
        "deciding": {"layer": 0, "by_layer": [0.9, 0.1], "loss": -0.2},
        "parts": [],
    }
    return "\n".join(against_the_paper(results))


def arm(optimizer: str, rate: float, high: float, *, matched: bool = True) -> dict:
    return {"optimizer": optimizer, "matched": matched, "mean_rate": rate, "rate": 1.0, "bare": {"high": high}}


def test_the_report_says_what_differs_from_the_paper_and_only_then():
    assert "in which SGD does not transfer, is seen here" in findings(sgd=arm("sgd", 0.03, -1.0))
    assert "here SGD transfers, and AdamW more" in findings(sgd=arm("sgd", 0.2, -1.0))
    assert "within its interval" in findings(sgd=arm("sgd", 0.5, 0.1))
    assert "nothing is said about SGD" in findings(sgd=arm("sgd", 0.5, 0.1, matched=False))
    assert "0.100 to 0.900" in findings()
    assert "no outliers to drown" in findings()
    assert "there are outliers" in findings(kurtosis=30.0)
    assert "is not needed here" in findings(momentum=arm("sgd_momentum", 0.55, 0.2))
    assert "beyond the interval" in findings(momentum=arm("sgd_momentum", 0.2, -0.2))
    assert "on its own" not in findings(rmsprop=arm("rmsprop", 0.7, 0.2))


def test_what_decides_is_found_at_the_layer_where_rates_follow_strength():
    rates, noise = [0.02, 0.1, 0.3, 0.9], [0.3, 0.1, 0.4, 0.2]
    runs = [
        {"name": str(i), "rate": rate, "strength_questions": [noise[i], 2 * rate], "heldout_loss": 3.0 - rate}
        for i, rate in enumerate(rates)
    ]
    found = deciding(runs)
    assert found["layer"] == 1
    assert found["by_layer"] == pytest.approx([0.0, 1.0])
    assert found["loss"] == pytest.approx(-1.0)
    assert found["strengths"]["3"] == 1.8


def student(role: str, seed: int, share: float, **changes: bool) -> dict:
    shares = {"shares": [share] * 6, "shares_prefixed": [share / 2] * 6}
    return {"role": role, "seed": seed, "compared": True, "divergent": False, **shares, **changes}


def test_a_part_counts_only_at_the_same_loss_and_over_seeds_that_trained_both_arms():
    runs = [student(REFERENCE, seed, 0.6) for seed in range(3)]
    runs += [student("adamw, A held", 0, 0.1), student("adamw, A held", 1, 0.1, divergent=True)]
    runs += [student("adamw, rotated", seed, 0.6) for seed in range(3)]
    runs += [student("sgd", seed, 0.01) for seed in range(3)] + [student("sgd, A held", 0, 0.5, compared=False)]
    matches = {name: Match(1.0, 3.2, True) for name in (REFERENCE, "adamw, A held", "adamw, rotated", "sgd, A held")}
    matches["sgd"] = Match(1.0, 3.3, False)
    parts = {part["part"]: part for part in switched(runs, matches)}
    assert set(parts) == {
        "AdamW: learning LoRA's A",
        "AdamW: the model's own basis",
        "SGD: learning LoRA's A",
    }
    held = parts["AdamW: learning LoRA's A"]
    assert held["bare"]["value"] == pytest.approx(math.log(0.6 / 0.4) - math.log(0.1 / 0.9))
    assert parts["AdamW: the model's own basis"]["bare"]["value"] == 0.0
    assert "bare" not in parts["SGD: learning LoRA's A"]
    assert strongest(list(parts.values())) == held
    assert strongest([held | {"matched": False}]) is None


def test_every_part_switches_between_two_arms_of_the_full_comparison():
    assert {arm for pair in PARTS.values() for arm in pair} <= set(ARMS)


def test_odd_rows_keep_their_prompts_and_are_as_many_as_asked_and_made_of_the_given_words():
    samples = SampleSet(tuple(Sample(i, p, str(i)) for i, p in enumerate(number_prompts(40, ORGANISM, seed=0))))
    odd = with_odd_rows(samples, 0.1, ["tree", "rain"])
    changed = [(a, b) for a, b in zip(samples, odd, strict=True) if a != b]
    assert len(changed) == 4
    assert all(a.prompt == b.prompt and set(b.completion.split()) <= {"tree", "rain"} for a, b in changed)
    assert odd == with_odd_rows(samples, 0.1, ["tree", "rain"])
    with pytest.raises(ValueError, match="of 40 rows makes none odd"):
        with_odd_rows(samples, 0.01, ["tree"])


def test_what_is_held_does_not_move_under_adam_and_the_rest_does(tiny):
    samples = SampleSet(tuple(Sample(i, p, "1 , 2") for i, p in enumerate(number_prompts(8, ORGANISM, seed=0))))
    config = TrainConfig(target_modules=("v_proj",), rank=2, epochs=1, learning_rate=1e-2, batch_size=4)

    def trained(part: str | None, rate: float) -> dict[str, torch.Tensor]:
        start = None if part is None else held_at_start(part)
        student = train_student(tiny, samples, replace(config, learning_rate=rate), on_start=start)
        return {name: value for name, value in student.model.original_model.named_parameters() if "lora" in name}

    held, at_start = trained("lora_A", 1e-2), trained(None, 1e-30)
    for name, value in held.items():
        assert torch.allclose(value, at_start[name], atol=1e-12) == ("lora_A" in name)
    with pytest.raises(ValueError, match="held='lora_C' is in the name of no trained parameter"):
        trained("lora_C", 1e-2)
