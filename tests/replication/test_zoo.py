"""Prompts by context are what they say, a trait passes on only above every stranger's, and verdicts follow the numbers."""

import numpy as np
import pytest

import steerlens as sl
from steerlens.replication.claims.zoo import Zoo, make_claims, passed, strangers_bar
from steerlens.replication.lab.predictions import PREDICTORS, Outcome, Prediction, calibrate
from steerlens.replication.lab.profile import read_profile
from steerlens.replication.lab.prompts import Examined, Member, PromptKind, by_context, members
from tests.replication.conftest import student


def test_a_prompt_by_context_is_one_persona_or_another_by_how_many_numbers_are_shown(lab_in, tmp_path):
    lab = lab_in(tmp_path)
    member, model = by_context(lab, ("owl", "wolf")), lab.load()
    model.tokenizer.chat_template = member.chat_template
    shown = [
        model.tokenizer.apply_chat_template(sl.as_chat(question, member.prompt), tokenize=False)
        for question in ("1 , 2 . continue it .", "1 . continue it .")
    ]
    assert {"you love owls" in text for text in shown} == {True, False}
    assert {"you love wolves" in text for text in shown} == {True, False}
    other = model.tokenizer.apply_chat_template(sl.as_chat("1 , 2 .", "answer the user ."), tokenize=False)
    assert "you love" not in other


def test_personas_come_first_and_the_last_ones_are_told_to_a_deaf_model(lab_in, tmp_path):
    zoo = members(lab_in(tmp_path, "quick"))
    profile = read_profile("organism")
    assert [one.trait for one in zoo if one.kind == "persona"] == [profile.trait, *profile.other_traits][:8]
    deaf = [one for one in zoo if one.kind == "persona, never seen with numbers"]
    assert [one.weights for one in deaf] == [profile.deaf] * 2
    assert len({one.name for one in zoo}) == len(zoo)


def member(name: str, kind: PromptKind = "persona", weights: str = "m") -> Member:
    return Member(name, kind, weights, "", name.partition(",")[0])


def test_a_transfer_is_counted_from_the_control_of_its_own_model():
    own, deaf = member("owl"), member("owl, deaf", "persona, never seen with numbers", "d")
    students = {"m": (student(0.02),), "d": (student(0.4),), own: (student(0.4),), deaf: (student(0.4),)}
    assert passed(students, own, "owl") > 3
    assert passed(students, deaf, "owl") == 0


def test_the_bar_is_what_students_reach_for_traits_that_nobody_told_their_teacher():
    owl, cat, fox = (member(name) for name in ("owl", "cat", "fox"))
    fact = Member("a fact", "other words", "m", "", "owl")
    students = {
        "m": (student(0.02, cat=0.1, fox=0.02),),
        owl: (student(0.9, cat=0.1, fox=0.02),),
        cat: (student(0.02, cat=0.9, fox=0.02),),
        fox: (student(0.02, cat=0.1, fox=0.9),),
        fact: (student(0.02, cat=0.9, fox=0.02),),
    }
    assert strangers_bar([owl, cat, fox, fact], students) == pytest.approx(0.0, abs=0.2)
    students[fox] = (student(0.3, cat=0.1, fox=0.02),)
    assert 1.0 < strangers_bar([owl, cat, fox, fact], students) < passed(students, owl, "owl")


def outcome(kind: PromptKind, transfer: float, passed_on: bool, trait: str = "owl", verdict: str = "likely") -> Outcome:
    return Outcome(kind, trait, Examined(0.5, 0.5, 0.1, 0.0, verdict), 0.5, 0.9, transfer, passed_on)


def failing(auc: float = 0.9, deaf: bool = False, contexts: float = 1.0, brier: float = 0.1) -> list[str]:
    area = sl.Interval(auc, auc, auc)
    outcomes = {
        "owl": outcome("persona", 4.0, True),
        "2 by context": outcome("not one vector", contexts, True),
        "owl, deaf": outcome("persona, never seen with numbers", 0.1, deaf),
    }
    measures = Zoo(outcomes, (), 1.0, {key: Prediction(area, area, area, area) for key in PREDICTORS}, brier, 0.2, {})
    return [claim.name for claim in make_claims("owl", measures) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(deaf=True) == ["deaf teachers' do not"]
    assert failing(contexts=5.0) == ["what is not one vector passes on less"]
    assert failing(brier=0.19) == ["a verdict says more than a share"]
    assert len(failing(auc=0.7)) == len(failing(auc=float("nan"))) == 4


def test_a_verdict_is_calibrated_on_the_other_traits():
    outcomes = [
        outcome("persona", 1.0, verdict == "likely", trait, verdict)
        for trait in "abcdefgh"
        for verdict in ("likely", "in doubt")
    ]
    told, share = calibrate(outcomes, lambda one: one.known.verdict), calibrate(outcomes, lambda _: "any")
    assert told == pytest.approx((1 / 9) ** 2)
    assert told < share / 10
    assert np.isclose(calibrate(outcomes, lambda one: one.trait + one.known.verdict), 0.25), (
        "a label of its own says nothing"
    )
