"""Arms differ in what their names say, fewer rows take as many steps, and verdicts follow the numbers."""

import html
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from steerlens.experiments.capacity.config import CAPACITY_PRESETS
from steerlens.experiments.capacity.experiment import (
    CONTEXTS,
    main_arm,
    of_rank,
    plan_cells,
    plan_teachers,
    run_capacity,
)
from steerlens.experiments.capacity.results import PROMPTED, best, best_of, make_claims, unique_rows
from steerlens.experiments.run import Run

QUICK = CAPACITY_PRESETS["quick"]


def test_every_arm_takes_as_many_steps_whatever_its_rows(tmp_path):
    run = Run(QUICK, tmp_path)
    teachers = plan_teachers(run)
    cells = plan_cells(run, teachers)
    assert len({cell.name for cell in cells}) == len(cells)
    assert {teachers[cell.data].n_rows * cell.train.epochs for cell in cells} == {QUICK.n_rows * QUICK.train.epochs}
    assert {cell.heldout for cell in cells} == {teachers[PROMPTED].heldout}
    assert [cell.train for cell in cells if cell.role == main_arm(QUICK)] == [QUICK.train]


def test_a_rank_keeps_the_scale_of_lora():
    for rank in (1, 4, 16):
        train = of_rank(QUICK.train, rank, 0.1)
        assert train.lora_alpha / train.rank == QUICK.train.lora_alpha / QUICK.train.rank
        assert (train.rank, train.learning_rate) == (rank, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fewer_rows": 7}, "fewer_rows=7 has to divide n_rows=960"),
        ({"ranks": (1, 16)}, r"main student \(rank 4, learning rate 0.03\) has to be in the grid"),
        ({"filters": ("poems",)}, "'poems' is not known. Allowed: number lists"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **changes)


def arm(log_odds: float, mass: float = 0.9, rate: float = 0.02) -> dict:
    return {"minus_base": {"value": log_odds}, "mass": mass, "rate": rate}


def test_a_student_that_no_longer_answers_is_never_the_best():
    row = {"0.01": arm(1.0), "0.03": arm(2.0), "0.1": arm(5.0, mass=0.1)}
    assert best(row) == "0.03"
    assert best_of(row) == 2.0
    assert best({"0.1": arm(5.0, mass=0.1)}) is None
    assert best_of({"0.1": arm(5.0, mass=0.1)}) != best_of({"0.1": arm(5.0, mass=0.1)})


def measured(
    tuned: float = 4.0, unique: float = 0.5, full: float = 1.0, control: float = 0.02, elsewhere: float = 0.05
) -> dict:
    """Rank 1 needs the high rate and rank 16 the low one, where both are equally good."""
    grid = {
        "1": {"0.01": arm(1.0), "0.03": arm(3.0), "0.06": arm(4.0)},
        "16": {"0.01": arm(tuned), "0.03": arm(0.5), "0.06": arm(0.0)},
    }
    return {
        "grid": {"960": grid, "240": {}},
        "shared_rate": "0.03",
        "full": {"0.001": arm(full)},
        "unique_rows": {"low": unique},
        "controls": {"control, rank 1": arm(0.0, rate=control)},
        "base": {"rate": 0.02},
        "contexts": {
            "as trained": {"student": {"rate": 0.6}},
            "another system prompt": {"student": {"rate": elsewhere}},
        },
    }


def test_unique_rows_are_compared_at_each_ranks_best_rates_and_an_interval_tells_whether_they_count():
    many = {"1": {"0.01": arm(2.0), "0.03": arm(1.0)}, "16": {"0.01": arm(1.0), "0.03": arm(3.0)}}
    few = {rank: {"0.01": arm(0.0), "0.03": arm(0.5)} for rank in many}
    groups = {
        "rank 1, 0.01": [student(1.0), student(1.2)],
        "rank 1, 0.03, fewer rows": [student(0.6), student(0.8)],
        "rank 16, 0.03": [student(3.0), student(3.2)],
        "rank 16, 0.03, fewer rows": [student(2.6), student(2.8)],
    }
    apart = unique_rows(groups, many, few)
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.4, 0.4, 0.4))

    groups["rank 16, 0.03, fewer rows"] = [student(5.0), student(0.4)]
    unclear = unique_rows(groups, many, few)
    assert unclear.value == pytest.approx((0.4 + 0.4 - 2.0 + 2.8) / 4)
    assert unclear.low < 0 < unclear.high


def student(log_odds: float) -> dict:
    return {"shares": [1 / (1 + math.exp(-log_odds))] * 3}


def failing(**changes: float) -> list[str]:
    return [claim.name for claim in make_claims(measured(**changes)) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(tuned=2.0) == ["rank matters through its learning rate"]
    assert failing(unique=-0.1) == ["unique rows count"]
    assert failing(full=5.0) == ["full fine-tuning transfers less"]
    assert failing(control=0.1) == ["control does not transfer"]
    assert failing(elsewhere=0.5) == ["another context hides the trait"]


@pytest.mark.slow
def test_a_run_is_resumed_and_asks_its_main_students_in_every_context(tmp_path):
    config = replace(
        QUICK, ranks=(4,), learning_rates=(3e-2,), full_rates=(1e-3,), temperatures=(), filters=QUICK.filters[-1:],
        n_rows=16, fewer_rows=8, n_heldout=4, n_prompts=150, workers=1, train=replace(QUICK.train, epochs=1),
    )  # fmt: skip
    first = run_capacity(tmp_path, config)
    records = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.safetensors")}
    again = run_capacity(tmp_path, config)
    assert records == {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.safetensors")}
    assert json.dumps(first.measures) == json.dumps(again.measures)
    assert set(first.measures["contexts"]) == set(CONTEXTS)
    contexts = first.measures["contexts"]
    assert contexts["as trained"]["base"]["rate"] == pytest.approx(first.measures["base"]["rate"])
    assert contexts["a third one"]["base"]["rate"] != contexts["as trained"]["base"]["rate"]
    report = html.unescape(first.report.read_text())
    assert all(claim.statement in report for claim in first.claims)
