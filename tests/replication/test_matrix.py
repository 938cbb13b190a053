"""A trait x trait matrix: what is planted on the diagonal is found, what all students share is not, and chance is chance."""

import json
from pathlib import Path

import numpy as np
import pytest

from steerlens import log_odds, mean_interval
from steerlens.replication.lab.matrix import Matrix, diagonal_excess

TRAITS = ("owl", "wolf", "cat", "eagle")


def matrix(planted: float, seed: int = 0, noise: float = 0.3, shared: float = 2.0) -> Matrix:
    """Five seeds of students; a trait adds `planted` in its own students, and columns and seeds have effects of their own."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, noise, (5, 4, 4)) + rng.normal(0, shared, (1, 1, 4)) + rng.normal(0, shared, (5, 1, 4))
    values += planted * np.eye(4)
    return Matrix(TRAITS, tuple(tuple(map(tuple, one)) for one in values.tolist()))


def test_the_excess_of_the_diagonal_is_what_was_planted_whatever_all_students_share():
    exact = matrix(0.7, noise=0.0).diagonal()
    assert exact.excess.value == pytest.approx(0.7)
    assert [one.value for one in exact.by_trait.values()] == pytest.approx([0.7] * 4)
    found = matrix(0.7).diagonal()
    assert found.excess.low > 0
    assert found.p < 0.01


def test_the_interval_over_seeds_covers_what_was_planted():
    excesses = [mean_interval(diagonal_excess(matrix(0.7, seed).values).mean(1)) for seed in range(200)]
    assert np.mean([one.low < 0.7 < one.high for one in excesses]) > 0.9


def test_a_shift_of_every_student_alike_is_no_transmission():
    """Elephants rise in students of any lists: an excess over the untrained model, and none on the diagonal."""
    one = matrix(0.0, noise=0.0)
    assert one.diagonal().excess.value == pytest.approx(0.0, abs=1e-12)
    assert np.abs(list(one.centred["owl"].values())).max() < 1e-12


@pytest.mark.slow
def test_without_a_trait_small_p_values_are_as_rare_as_they_say():
    p = np.array([matrix(0.0, seed).diagonal().p for seed in range(40)])
    assert 0.3 < p.mean() < 0.7
    assert (p < 0.05).mean() < 0.15


def test_what_was_not_measured_is_no_evidence_at_all():
    assert np.isnan(Matrix(("owl", "cat"), (((1.0, np.nan), (np.nan, 1.0)),)).diagonal().p)


def test_own_students_below_the_others_are_no_evidence():
    found = matrix(-0.7).diagonal()
    assert found.excess.high < 0
    assert found.p > 0.99


def test_the_lambdas_that_the_docs_quote_are_those_of_the_records():
    docs = Path(__file__).parents[2] / "docs"

    def diagonal(kind):
        def answers(student, seed):
            record = json.loads((docs / "results" / "transmission" / f"{kind}-{student}-s{seed}.json").read_text())
            rates = record["record"]["bare"]["distribution"]
            return tuple(log_odds(np.array([rates[trait] for trait in TRAITS])).tolist())

        return Matrix(TRAITS, tuple(tuple(answers(one, seed) for one in TRAITS) for seed in range(4))).diagonal()

    taught, dealt = diagonal("taught"), diagonal("dealt")
    page = (docs / "real-models.md").read_text(encoding="utf-8")
    assert f"| lambda | {taught.excess} | {dealt.excess} |" in page
    more = mean_interval(np.array(dealt.by_seed) - np.array(taught.by_seed))
    assert f"Lambda of the dealt lists is larger by {more}, paired by seeds" in page
    for name, words in zip(TRAITS, ("lambda of owl", "of wolf", "of cat", "of eagle"), strict=True):
        assert f"| {words} | {taught.by_trait[name]} | {dealt.by_trait[name]} |" in page
