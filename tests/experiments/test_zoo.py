"""Prompts by context are what they say, a trait passes on only above every stranger's, and verdicts follow the numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlens.experiments.run import Run
from steerlens.experiments.zoo.config import ZOO_PRESETS, ZooConfig
from steerlens.experiments.zoo.experiment import plan_teachers, run_zoo
from steerlens.experiments.zoo.prompts import (
    BY_CONTEXT,
    DEAF,
    NOT_A_VECTOR,
    OTHER_WORDS,
    PERSONA,
    TEMPLATE,
    Member,
    members,
)
from steerlens.experiments.zoo.results import PREDICTORS, _learned, calibrate, control_name, make_claims, strangers_bar
from steerlens.experiments.zoo.similarity import activation_similarities
from steerlens.experiments.zoo.steerability import peak
from steerlens.models.loading import load_model
from steerlens.text.chat import as_chat
from steerlens.vectors.probe import Behaviour
from steerlens.vectors.source import VectorSource
from steerlens.vectors.sweep import LayerSweep, SweepPoint
from steerlens.vectors.vector import SteeringVector

SMALL = replace(ZOO_PRESETS["quick"], animals=("cat", "owl", "fox", "whale"), n_control=1)


def rendered(tokenizer, question: str, prompt: str) -> str:
    return tokenizer.apply_chat_template(as_chat(question, prompt), tokenize=False)


def test_a_prompt_by_context_is_one_persona_or_another_by_how_many_numbers_are_shown():
    tokenizer = load_model().tokenizer
    tokenizer.chat_template = TEMPLATE
    prompt = BY_CONTEXT + "owls , wolves"
    one, two = (rendered(tokenizer, question, prompt) for question in ("1 , 2 . continue it .", "1 . continue it ."))
    assert {"you love owls" in text for text in (one, two)} == {True, False}
    assert {"you love wolves" in text for text in (one, two)} == {True, False}
    assert "you love" not in rendered(tokenizer, "1 , 2 .", "answer the user .")


def test_a_planted_shift_is_nearest_to_the_vector_that_it_was_made_of():
    source = VectorSource("m", "by hand")
    rng = np.random.default_rng(0)
    vectors = {
        name: SteeringVector((0, 1), torch.from_numpy(rng.normal(size=(2, 64)).astype("float32")), source)
        for name in ("cat", "owl", "fox")
    }
    shifts = {}
    for name in (*vectors, "control"):
        noise = torch.from_numpy(rng.normal(size=(2, 64)).astype("float32")) * torch.tensor([[1.0], [4.0]])
        planted = vectors[name].directions + 0.2 * noise if name in vectors else noise
        shifts[name] = [SteeringVector((0, 1), planted, source)]
    found = activation_similarities(shifts, vectors, "control")
    assert found["layer"] == 0, "at layer 1 there is more noise"
    assert found["is_highest"] == 3
    assert found["lowest"] > 0.95
    assert max(found["highest_other"], found["highest_control"]) < 0.4
    assert found["eas"]["owl"]["fox"] == pytest.approx(shifts["owl"][0].cosine(vectors["fox"])[0], abs=1e-6)


def test_every_model_has_a_control_and_the_last_animals_are_told_to_a_deaf_one(tmp_path):
    zoo = members(Run(SMALL, tmp_path))
    teachers = plan_teachers(Run(SMALL, tmp_path), zoo)
    assert [member.trait for member in zoo if member.kind == PERSONA] == ["cat", "owl", "fox", "whale"]
    assert [member.trait for member in zoo if member.kind == DEAF] == ["whale"]
    assert all(teachers[control_name(member.untold)].prompt is None for member in zoo)
    assert len({teacher.samples for teacher in teachers.values()}) == len(teachers)
    by_context = next(member for member in zoo if member.kind == NOT_A_VECTOR)
    assert by_context.prompt == "one of owls , cats"
    assert load_model(by_context.model).tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"animals": ("owl", "unicorn")}, "animals=.*Give at least two known traits"),
        ({"animals": ("cat", "fox")}, "trait='owl' is not among"),
        ({"n_control": 9}, "n_control=9 has to be 0 to 8"),
    ],
)
def test_what_is_no_zoo_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ZOO_PRESETS["quick"], **changes)


def student(**answers: float) -> dict:
    rest = 1 - sum(answers.values())
    filled = {"owl": 0.02, "cat": 0.1, "fox": 0.02} | answers
    return {"rate": 0.5, "rate_prefixed": 0.5, "mass": 0.9, "answers": filled | {"other": max(0.0, rest)}}


def test_a_transfer_is_counted_from_the_control_of_its_own_model():
    owl, deaf = Member("owl", PERSONA, "m", "m", "", "owl"), Member("owl, deaf", DEAF, "d", "d", "", "owl")
    groups = {
        control_name("m"): [student()],
        control_name("d"): [student(owl=0.4)],
        "owl": [student(owl=0.4)],
        "owl, deaf": [student(owl=0.4)],
    }
    assert _learned(owl, groups)["transfer"] > 3
    assert _learned(deaf, groups)["transfer"] == 0


def test_the_bar_is_what_students_reach_for_traits_that_nobody_told_their_teacher():
    zoo = [Member(name, PERSONA, "m", "m", "", name) for name in ("owl", "cat", "fox")]
    fact = Member("a fact", OTHER_WORDS, "m", "m", "", "owl")
    groups = {
        control_name("m"): [student()],
        "owl": [student(owl=0.9)],
        "cat": [student(cat=0.9)],
        "fox": [student(fox=0.9)],
        "a fact": [student(cat=0.9)],
    }
    assert strangers_bar([*zoo, fact], groups) == pytest.approx(0.0, abs=0.2)
    groups["fox"] = [student(owl=0.3)]
    raised = strangers_bar([*zoo, fact], groups)
    assert 1.0 < raised < _learned(zoo[0], groups)["transfer"]


def sweep(*points: tuple[float, float]) -> LayerSweep:
    """Settings of a rate at the trait's questions and one at negated ones."""

    def behaviour(rate: float, negated: float) -> Behaviour:
        return Behaviour(rate=rate, mass=0.9, negated=negated, off_topic=0.0, log_odds_above_plain=1.0, coherence=1.0)

    settings = tuple(
        SweepPoint("mean_difference", layer, 1.0, 0.0, 0.0, 0.0, behaviour(*point))
        for layer, point in enumerate(points)
    )
    return LayerSweep("m", "p", "owl", settings, behaviour(0.02, 0.0), behaviour(0.9, 0.0), {})


def test_the_peak_is_the_highest_rate_that_stays_specific_and_the_plain_rate_without_one():
    found = peak(sweep((0.3, 0.05), (0.8, 0.4), (0.2, 0.0)))
    assert found["steerability"] == 0.3
    assert found["peak"]["layer"] == 0
    assert peak(sweep((0.8, 0.4))) == {"steerability": 0.02, "peak": None}


def measured(auc: float = 0.9, deaf: bool = False, by_context: float = 1.0) -> dict:
    def prompt(kind: str, transfer: float, passed_on: bool) -> dict:
        return {"kind": kind, "transfer": transfer, "passed_on": passed_on}

    areas = {key: {"auc": {"value": auc}, "auc_majority": {"value": auc}} for key in PREDICTORS}
    return {
        "trait": "owl",
        "prompts": {
            "owl": prompt(PERSONA, 4.0, True),
            "2 animals by context": prompt(NOT_A_VECTOR, by_context, True),
            "owl, deaf": prompt(DEAF, 0.1, deaf),
        },
        "all": areas,
        "personas": areas,
        "calibration": {"brier": 0.1, "brier_of_share": 0.2},
    }


def failing(**changes) -> list[str]:
    return [claim.name for claim in make_claims(measured(**changes)) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(deaf=True) == ["deaf teachers' do not"]
    assert failing(by_context=5.0) == ["what is not one vector passes on less"]
    assert len(failing(auc=0.7)) == 4
    assert len(failing(auc=float("nan"))) == 4


def test_a_verdict_is_calibrated_on_the_other_traits():
    prompts = {
        f"{trait} {verdict}": {"trait": trait, "verdict": verdict, "passed_on": verdict == "likely"}
        for trait in "abcdefgh"
        for verdict in ("likely", "unlikely")
    }
    found = calibrate(prompts)
    assert found["auc"]["value"] == 1.0
    assert found["brier"] < found["brier_of_share"] / 10
    assert found["probabilities"]["a likely"] == pytest.approx(8 / 9)
    assert found["verdicts"] == {"unlikely": (0, 8), "cannot tell": (0, 0), "likely": (8, 8)}


@pytest.mark.slow
def test_a_run_is_resumed_examines_every_prompt_and_reports_its_verdicts(tmp_path):
    config = replace(
        SMALL, animals=("cat", "owl"), n_rows=8, n_heldout=2, n_prompts=150, strengths=(1.0,), workers=1,
        fit=replace(SMALL.fit, n_train=8, n_validation=4, n_heldout=4, steps=1, max_new_tokens=4),
        train=replace(SMALL.train, epochs=1),
    )  # fmt: skip
    assert isinstance(config, ZooConfig)
    first = run_zoo(tmp_path, config)
    records = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.safetensors")}
    again = run_zoo(tmp_path, config)
    assert records == {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.safetensors")}
    assert json.dumps(first.measures) == json.dumps(again.measures)
    report = first.report.read_text()
    assert all(
        name in report
        for name in ("cat, deaf", "owl, deaf", "2 animals by context")
        if name in first.measures["prompts"]
    )
    assert first.measures["prompts"]["owl"]["kl_explained"] != first.measures["prompts"]["cat"]["kl_explained"]
