"""Verdicts on who learns from whom, and whose vector predicts whose data, follow the numbers."""

import steerlens as sl
from steerlens.replication.claims.cross_model import PAIRS, READERS, CrossModel, make_claims
from steerlens.replication.lab.loss_matrix import Matrix, Reduction


def failing(related: float = 0.1, strangers: float = 0.0, random: float = 0.01, **over: float) -> list[str]:
    """The claims that fail, of a run in which all holds but for what is given; `over` by the pair's number."""
    usual = (20.0, 20.0, 1.0, 1.0, 10.0, 1.0, 1.0)
    over_base = {pair: over.get(f"pair_{i}", usual[i]) for i, pair in enumerate(PAIRS)}

    def entry(value: float) -> Reduction:
        return Reduction(value, 0.0, sl.Interval(value, value - 0.02, value + 0.02), 0.001, random, 1.0)

    matrix = {
        one.name: {other.name: entry(related if one.kin == other.kin else strangers) for other in READERS}
        for one in READERS
    }
    claims = make_claims(CrossModel({}, {}, {}, Matrix(matrix)), over_base)
    return [claim.name for claim in claims if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(strangers=0.05) == ["vectors do not predict strangers' data"]
    assert failing(random=0.2) == ["more than random ones"]
    assert failing(pair_3=5.0) == ["other initialisation does not"]
    assert failing(pair_4=2.0) == ["trained further, it still does"]
