"""A vector is halved until lists can be written, and verdicts follow the numbers."""

import pytest
import torch

import steerlens as sl
from steerlens.replication.claims.distillation import Distillation, Distilled, make_claims
from steerlens.replication.lab.directions import Arm, VectorKind, Vectors, weakened

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # the organism's small samples are short of lists


def distilled(eas: float, floor: float, moved: float, over: float) -> Distilled:
    return Distilled((eas,), floor, (0.5,), over, 0.9, moved, 0.5, 0.1)


ARMS = {
    "owl": Arm("owl", "semantic", "owl"),
    "owl x 0.5": Arm("owl x 0.5", "semantic", "owl", 0.5, "owl"),
    "random 1": Arm("random 1", "random", "owl"),
    "token 'rain'": Arm("token 'rain'", "unembedding", "owl"),
}
HOLDS = {
    "owl": distilled(0.8, 0.2, 0.5, 20.0),
    "owl x 0.5": distilled(0.1, 0.2, 0.0, 1.0),
    "random 1": distilled(0.7, 0.1, 0.05, 0.9),
    "token 'rain'": distilled(0.6, 0.1, 0.04, 1.1),
}


def failing(low: float = 0.5, without: VectorKind | None = None, **changes: Distilled) -> list[str]:
    arms = {name: arm for name, arm in ARMS.items() if arm.kind != without}
    found = HOLDS | {name.replace("_", " "): value for name, value in changes.items()}
    measures = Distillation(
        Vectors(0, ()), {}, {name: found[name] for name in arms}, (), 0.01, sl.Interval(1.0, low, 2.0)
    )
    return [claim.name for claim in make_claims(measures, arms) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(low=-0.1) == ["dose and response"]
    assert failing(random_1=distilled(0.3, 0.25, 0.05, 1.0)) == ["random vectors are distilled"]
    assert failing(random_1=distilled(0.7, 0.1, 0.4, 1.0)) == ["no behaviour without"]
    assert failing(owl=distilled(0.8, 0.2, 0.5, 2.0)) == ["behaviour with meaning"]


def test_a_kind_without_students_proves_nothing():
    assert failing(without="random") == ["random vectors are distilled"]


def test_arms_of_one_vector_differ_in_strength_alone():
    assert ARMS["owl x 0.5"].direction == ARMS["owl"].direction != ARMS["random 1"].direction


@pytest.mark.slow
def test_a_vector_that_ends_all_lists_is_halved_until_there_are_some_and_another_one_is_left(organism):
    like = sl.SteeringVector((0,), torch.full((1, 96), 0.5), sl.VectorSource.of(organism, method="by hand"))
    gentle = sl.random_like(like, seed=0)
    assert weakened(organism, gentle) is gentle
    halved = weakened(organism, 64.0 * gentle)
    assert 64.0 * gentle.norms[0] / halved.norms[0] in [pytest.approx(2.0**power) for power in range(1, 6)]
    assert halved.cosine(gentle)[0] == pytest.approx(1.0)
