"""What the argument claims follows its numbers, and a comparison without a match is not made."""

import numpy as np
import pytest

import steerlens as sl
from steerlens.replication.claims.argument import LOSS_TOLERANCE, Argument, Arm, make_claims
from steerlens.replication.lab.hardest import Hardest, hardest
from steerlens.replication.lab.prompt_fit import Fit
from tests.replication.conftest import asked, student, summary

TRAIN = sl.TrainConfig(target_modules=("v_proj",), learning_rate=0.03)
OWN, CONTROL = Arm("a", "a", True, TRAIN), Arm("a", "a", False, TRAIN)
OTHER, OTHER_CONTROL, STRANGER = Arm("b", "b", True, TRAIN), Arm("b", "b", False, TRAIN), Arm("a", "b", True, TRAIN)


def failing(rates: dict[Arm, float] | None = None, sgd: float | None = 1.0, explained: float = 0.9) -> list[str]:
    rates = {OWN: 0.6, OTHER: 0.2, CONTROL: 0.02, OTHER_CONTROL: 0.02, STRANGER: 0.02} | (rates or {})
    groups = {arm: (student(rate, 0), student(rate, 1)) for arm, rate in rates.items()}
    interval = sl.Interval
    measures = Argument(
        fit=Fit(0, interval(explained, 0.8, 1.0), 0.5, 0.0, -1.0, asked(0.9), asked(0.8)),
        base={"a": asked(0.02), "b": asked(0.02)},
        rows={},
        students={OWN.name: summary(0.6)},
        layer=0,
        floors=sl.Floors(0.1, 0.1, 0.2, 0.2, 0.7, 0.1),
        pull={OWN.name: interval(0.02, 0.015, 0.025), CONTROL.name: interval(0.0, -0.005, 0.005)},
        sgd={}
        if sgd is None
        else {"SGD": Hardest("sgd", 10, interval(sgd, sgd - 0.5, sgd + 0.5), interval(0.0, 0.0, 0.0))},
    )
    return [claim.name for claim in make_claims(measures, groups, OWN, CONTROL) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(explained=0.8) == ["prompt is a vector"]
    assert failing({OWN: 0.4}) == ["trait transfers"]
    assert failing({OTHER: 0.03}) == ["transfer on both"]
    assert failing({CONTROL: 0.2}) == ["control does not transfer"]
    assert failing({STRANGER: 0.2}) == ["other initialisation does not transfer"]
    assert failing(sgd=0.3) == ["AdamW more than loss-matched SGD"]
    assert failing(sgd=None) == ["AdamW more than loss-matched SGD"]


def test_every_arm_has_a_name_of_its_own():
    sgd = Arm("a", "a", True, sl.TrainConfig(optimizer="sgd", learning_rate=0.03, clip_norm=None))
    clipped = Arm("a", "a", True, sl.TrainConfig(optimizer="sgd", learning_rate=0.03))
    arms = (OWN, CONTROL, OTHER, OTHER_CONTROL, STRANGER, sgd, clipped)
    assert len({arm.name for arm in arms}) == len(arms)


def test_the_hardest_comparison_is_with_the_run_at_adams_loss_that_transfers_most_and_still_answers():
    fast, slow, worse, broken = (
        Arm("a", "a", True, sl.TrainConfig(learning_rate=rate)) for rate in (4.0, 1.0, 2.0, 8.0)
    )
    students = {
        OWN: (student(0.6),),
        slow: (student(0.05),),
        fast: (student(0.2),),
        worse: (student(0.4, loss=3.1),),
        broken: (student(0.9, mass=0.1),),
    }
    more = {OWN: (student(0.6, 0), student(0.5, 1)), fast: (student(0.2, 0), student(0.1, 1))}
    found = hardest(
        students, OWN, [slow, fast, worse, broken], LOSS_TOLERANCE, lambda arms: {arm: more[arm] for arm in arms}
    )
    assert found is not None
    assert (found.arm, found.n_pairs) == (fast.name, 2)
    pairs = ((0.6, 0.2), (0.5, 0.1))
    differences = [np.log(ours / (1 - ours)) - np.log(theirs / (1 - theirs)) for ours, theirs in pairs]
    assert found.bare.value == pytest.approx(np.mean(differences), abs=0.01)
    assert hardest(students, OWN, [worse, broken], LOSS_TOLERANCE, lambda arms: more) is None


def test_a_run_whose_further_students_miss_adams_loss_gives_way_to_the_next():
    fast, slow = (Arm("a", "a", True, sl.TrainConfig(learning_rate=rate)) for rate in (4.0, 1.0))
    students = {OWN: (student(0.6),), fast: (student(0.2),), slow: (student(0.05),)}
    more = students | {fast: (student(0.2), student(0.3, loss=9.0))}
    found = hardest(students, OWN, [fast, slow], LOSS_TOLERANCE, lambda arms: {arm: more[arm] for arm in arms})
    assert found is not None
    assert found.arm == slow.name
