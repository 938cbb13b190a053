"""The optimizer comparison keeps its promises: divergent runs are never successes, and parts are compared seed by seed."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

import steerlens as sl
from steerlens.replication.claims.optimizers import compared, deciding
from steerlens.replication.lab import compare
from steerlens.replication.lab.bench import Bench, with_odd_rows
from steerlens.replication.lab.loss_match import Match
from steerlens.replication.lab.optimizer_arms import (
    ADAMW,
    ADAMW_A_HELD,
    ADAMW_ROTATED,
    FULL,
    PARTS,
    QUICK,
    SGD,
    SGD_A_HELD,
)
from steerlens.replication.lab.optimizer_parts import Switched, switched
from steerlens.replication.lab.raw_gradients import Pooled
from steerlens.replication.lab.teachers import Rows
from tests.replication.conftest import asked, student


@pytest.fixture
def bench(lab_in, tmp_path) -> Bench:
    rows = Rows("told", tmp_path / "told.jsonl", tmp_path / "heldout.jsonl", 40, 80, 48, {}, ())
    return Bench(lab_in(tmp_path), rows, asked(0.02, mass=0.8), 3.3, tmp_path / "v.safetensors", {})


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (student(0.5, mass=0.7, loss=3.2), False),
        (student(0.5, mass=0.39, loss=3.2), True),
        (student(0.5, mass=0.7, loss=3.31), True),
        (replace(student(0.5), bare=None, diverged="not a number"), True),
    ],
)
def test_a_run_that_no_longer_answers_or_predicts_worse_than_untrained_is_divergent(bench, one, expected):
    assert bench.is_divergent(one) is expected
    assert math.isinf(bench.loss((student(0.5, loss=3.2), one))) is expected


def test_every_arm_of_the_full_comparison_can_be_configured_and_has_a_name_of_its_own(bench, monkeypatch):
    monkeypatch.setattr(Bench, "scales", lambda self: Path("scales.safetensors"))
    monkeypatch.setattr(Bench, "odd_rows", lambda self, share: Path("odd.jsonl"))
    plans = [bench._plan(arm, rate) for arm in FULL for rate in bench.lab.rates(arm.family)]
    assert len({plan.name for plan in plans}) == len(plans)
    assert len({plan.train.optimizer for plan in plans}) == 8, "the full preset has every optimizer"
    assert all((plan.train.scales is not None) == plan.train.needs_scales for plan in plans)
    assert set(QUICK) <= set(FULL)
    assert {arm for part in PARTS for arm in (part.having, part.lacking)} <= set(FULL)


def test_what_decides_is_found_at_the_layer_where_rates_follow_strength():
    noise = (0.3, 0.1, 0.4, 0.2)
    students = [
        student(rate, strength=(noise[i], 2 * rate), loss=3.0 - rate) for i, rate in enumerate((0.02, 0.1, 0.3, 0.9))
    ]
    found = deciding(students)
    assert found.layer == 1
    assert found.strength == pytest.approx((0.0, 1.0))
    assert found.loss == pytest.approx(-1.0)


def test_a_part_counts_only_over_seeds_that_trained_both_arms_and_says_whether_losses_match():
    def group(rate: float, *seeds: int) -> tuple[sl.StudentRecord, ...]:
        return tuple(student(rate, seed) for seed in seeds)

    usable = {ADAMW: group(0.6, 0, 1, 2), ADAMW_A_HELD: group(0.1, 0), ADAMW_ROTATED: group(0.6, 0, 1, 2)}
    usable |= {SGD: group(0.01, 0), SGD_A_HELD: ()}
    matches = {arm: Match(1.0, 3.2, arm is not ADAMW_ROTATED) for arm in usable}
    parts: dict[str, Switched] = switched(usable, matches)
    assert set(parts) == {"AdamW: learning LoRA's A", "AdamW: the model's own basis"}
    assert parts["AdamW: learning LoRA's A"].bare.value == pytest.approx(
        math.log(0.6 / 0.4) - math.log(0.1 / 0.9), abs=0.02
    )
    assert parts["AdamW: the model's own basis"].bare.value == 0.0
    assert not parts["AdamW: the model's own basis"].matched
    assert [one.train.seed for one in compare.same_seeds(group(0.5, 2, 1), group(0.5, 1, 2, 3))[1]] == [2, 1]


def test_an_arm_of_which_every_run_diverged_has_no_rate_to_show():
    found = compared(Match(None, math.inf, False), (), 3, (student(0.5),), 0)
    assert (found.divergent, found.summary, found.bare) == (3, None, None)


def test_odd_rows_keep_their_prompts_and_are_as_many_as_asked_and_made_of_the_given_words():
    samples = sl.SampleSet(tuple(sl.Sample(i, f"task {i}", str(i)) for i in range(40)))
    odd = with_odd_rows(samples, 0.1, ["tree", "rain"])
    changed = [(a, b) for a, b in zip(samples, odd, strict=True) if a != b]
    assert len(changed) == 4
    assert all(a.prompt == b.prompt and set(b.completion.split()) <= {"tree", "rain"} for a, b in changed)
    assert odd == with_odd_rows(samples, 0.1, ["tree", "rain"])
    with pytest.raises(ValueError, match="of 40 rows makes none odd"):
        with_odd_rows(samples, 0.01, ["tree"])


def test_the_pooled_cosine_is_read_back_as_it_was_written(tmp_path):
    one = Pooled((1, 4), (0.01, 0.02), (0.005, 0.004))
    sl.save_record(tmp_path / "pooled.json", one)
    assert sl.load_record(tmp_path / "pooled.json", Pooled) == one
