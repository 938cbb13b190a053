"""Arms take as many steps whatever their rows, a rank keeps its scale, and verdicts follow the numbers."""

import math

import pytest

import steerlens as sl
from steerlens.replication.claims.capacity import Capacity, Taken, best, make_claims, unique_rows
from steerlens.replication.lab.capacity_arms import ALL, CONTROL, FEWER, REPEATED, Arm, Source, of_rank
from tests.replication.conftest import asked, student, summary

TRAIN = sl.TrainConfig(target_modules=("v_proj",), rank=4, lora_alpha=16.0, learning_rate=0.03)


def test_a_rank_keeps_the_scale_of_lora():
    for rank in (1, 4, 16):
        train = of_rank(TRAIN, rank, 0.1)
        assert train.lora_alpha / train.rank == TRAIN.lora_alpha / TRAIN.rank
        assert (train.rank, train.learning_rate) == (rank, 0.1)


def test_arms_and_sources_have_names_of_their_own():
    sources = (ALL, FEWER, CONTROL, Source(temperature=0.7))
    names = [Arm(source, rank, rate).name for source in sources for rank in (0, 1, 4) for rate in (0.01, 0.03)]
    assert len(set(names)) == len(names)
    assert REPEATED > 1


def curve(source: Source, rank: int, *rates: float) -> list[Arm]:
    return [Arm(source, rank, rate) for rate in rates]


def test_a_student_that_no_longer_answers_is_never_the_best():
    low, middle, high = curve(ALL, 4, 0.01, 0.03, 0.1)
    assert best([low, middle, high], {low: 1.0, middle: 2.0}) is middle
    assert best([high], {low: 1.0}) is None


def test_unique_rows_are_compared_at_each_ranks_best_rates_and_an_interval_tells_whether_they_count():
    many, few = ({rank: curve(source, rank, 0.01, 0.03) for rank in (1, 16)} for source in (ALL, FEWER))
    over = {many[1][0]: 2.0, many[1][1]: 1.0, many[16][0]: 1.0, many[16][1]: 3.0}
    over |= {arm: rate for rank in few for arm, rate in zip(few[rank], (0.0, 0.5), strict=True)}

    def group(*odds: float) -> tuple[sl.StudentRecord, ...]:
        return tuple(student(1 / (1 + math.exp(-one)), seed) for seed, one in enumerate(odds))

    students = {
        many[1][0]: group(1.0, 1.2),
        few[1][1]: group(0.6, 0.8),
        many[16][1]: group(3.0, 3.2),
        few[16][1]: group(2.6, 2.8),
    }
    apart = unique_rows(many, few, students, over)
    assert apart.value == pytest.approx(0.4, abs=0.03)
    assert apart.low > 0.2
    unclear = unique_rows(many, few, students | {few[16][1]: group(5.0, 0.4)}, over)
    assert unclear.low < 0 < unclear.high


def failing(
    tuned: float = 4.0, unique: float = 0.5, full: float = 1.0, control: float = 0.02, elsewhere: float = 0.05
) -> list[str]:
    """Rank 1 needs the high rate and rank 16 the low one, where both are equally good."""
    grid = {rank: curve(ALL, rank, 0.01, 0.03, 0.06) for rank in (1, 16)}
    over = dict(zip(grid[1] + grid[16], (1.0, 3.0, 4.0, tuned, 0.5, 0.0), strict=True))
    whole, untold = curve(ALL, 0, 1e-3), curve(CONTROL, 1, 0.03)
    over[whole[0]] = full
    measures = Capacity(
        base=asked(0.02),
        arms={untold[0].name: Taken(sl.Interval(0.0, 0.0, 0.0), summary(control))},
        kept={},
        unique_rows=sl.Interval(unique, unique, unique),
        contexts={"": (0.6, 0.02), "Answer the user.": (elsewhere, 0.02)},
    )
    return [claim.name for claim in make_claims(measures, grid, whole, untold, 0.03, over) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(tuned=2.0) == ["rank matters through its learning rate"]
    assert failing(unique=-0.1) == ["unique rows count"]
    assert failing(full=5.0) == ["full fine-tuning transfers less"]
    assert failing(control=0.1) == ["control does not transfer"]
    assert failing(elsewhere=0.5) == ["another context hides the trait"]
