"""Only what is in the lists is found in the students, and verdicts follow the numbers."""

import json
from dataclasses import replace

import pytest
import torch

from steerlens.experiments.distillation.config import DISTILLATION_PRESETS
from steerlens.experiments.distillation.experiment import run_distillation, weakened
from steerlens.experiments.distillation.results import LOGIT_LENS, RANDOM, SEMANTIC, distance, make_claims, mean_answers
from steerlens.vectors.controls import random_like
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


def arm(kind: str, eas: float, floor: float, moved: float, over: float) -> dict:
    return {"kind": kind, "eas": [eas], "highest_floor": floor, "answers_moved": moved, "rate_over_control": over}


ALL_HOLD = {
    "owl": arm(SEMANTIC, 0.8, 0.2, 0.5, 20.0),
    "owl x 0.5": arm(SEMANTIC, 0.1, 0.2, 0.0, 1.0),
    "random 1": arm(RANDOM, 0.7, 0.1, 0.05, 0.9),
    "token 'rain'": arm(LOGIT_LENS, 0.6, 0.1, 0.04, 1.1),
}


def failing(low: float = 0.5, **changes: dict) -> list[str]:
    arms = ALL_HOLD | {name.replace("_", " "): value for name, value in changes.items()}
    return [claim.name for claim in make_claims(arms, {"low": low}) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(low=-0.1) == ["dose and response"]
    assert failing(random_1=arm(RANDOM, 0.3, 0.25, 0.05, 1.0)) == ["random vectors are distilled"]
    assert failing(random_1=arm(RANDOM, 0.7, 0.1, 0.4, 1.0)) == ["no behaviour without"]
    assert failing(owl=arm(SEMANTIC, 0.8, 0.2, 0.5, 2.0)) == ["behaviour with meaning"]


def test_a_kind_without_students_proves_nothing():
    arms = {name: value for name, value in ALL_HOLD.items() if value["kind"] != RANDOM}
    assert "random vectors are distilled" in [
        claim.name for claim in make_claims(arms, {"low": 1.0}) if not claim.holds
    ]


def test_answers_are_as_far_apart_as_the_mass_that_has_to_be_moved():
    one, other = {"owl": 0.6, "cat": 0.4}, {"owl": 0.1, "cat": 0.9}
    assert distance(one, other) == pytest.approx(0.5)
    assert distance(one, one) == 0
    assert mean_answers([{"answers": one}, {"answers": other}]) == pytest.approx({"owl": 0.35, "cat": 0.65})


def test_a_trait_of_another_kind_is_refused_before_anything_is_made(tmp_path):
    config = replace(DISTILLATION_PRESETS["quick"], other_traits=("blue",))
    with pytest.raises(ValueError, match="'blue' is of another kind than 'owl'"):
        run_distillation(tmp_path / "run", config)
    assert not list((tmp_path / "run").iterdir())


def test_a_vector_that_ends_all_lists_is_halved_until_there_are_some_and_another_one_is_left(organism):
    like = SteeringVector((0,), torch.full((1, 96), 0.5), VectorSource.of(organism, method="by hand"))
    gentle = random_like(like, seed=0)
    assert weakened(organism, gentle) is gentle
    fierce = 64.0 * gentle
    halved = weakened(organism, fierce)
    factor = fierce.norms[0] / halved.norms[0]
    assert factor in (2.0, 4.0, 8.0, 16.0, 32.0)
    assert halved.cosine(gentle)[0] == pytest.approx(1.0)


@pytest.mark.slow
def test_a_run_is_resumed_and_finds_the_vector_in_its_own_students_alone(tmp_path):
    quick = DISTILLATION_PRESETS["quick"]
    config = replace(
        quick, other_traits=(), n_random=2, tokens=(), strengths=(2.0,), n_rows=256, n_heldout=8, n_prompts=1500,
        student_seeds=(0,), workers=1, fit=replace(quick.fit, n_train=64, n_validation=16, n_heldout=16, steps=10),
    )  # fmt: skip
    first = run_distillation(tmp_path, config)
    for name in ("random 1", "random 2"):
        row = first.measures["cosines"][name]
        assert row[name] == max(row.values())
        assert row[name] > first.measures["arms"][name]["highest_floor"]
    again = run_distillation(tmp_path, config)
    assert json.dumps(first.measures) == json.dumps(again.measures)
