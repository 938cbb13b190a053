"""Dealing numbers anew keeps how often each occurs, and nothing else that tells writers apart."""

import numpy as np
import pytest

import steerlens as sl
from steerlens.replication.lab.schooling import frequencies_apart, schooled, shuffled


def lists(frequencies, seed: int) -> sl.SampleSet:
    """A thousand lists of ten numbers, each followed by itself more often than chance."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(frequencies), (1000, 5), p=frequencies)
    return sl.SampleSet(
        tuple(sl.Sample(row, f"go on {row}", ", ".join(map(str, np.repeat(one, 2)))) for row, one in enumerate(drawn))
    )


EVEN, UNEVEN = (0.25, 0.25, 0.25, 0.25), (0.4, 0.3, 0.2, 0.1)


def test_numbers_dealt_anew_occur_as_often_and_no_longer_together():
    written = lists(UNEVEN, 0)
    dealt = shuffled(written, seed=0)
    assert frequencies_apart(dealt, written) == pytest.approx(0, abs=1e-12)
    assert [one.prompt for one in dealt] == [one.prompt for one in written]

    def doubled(samples: sl.SampleSet) -> float:
        rows = [one.completion.split(", ") for one in samples]
        return float(np.mean([row[at] == row[at + 1] for row in rows for at in range(0, 10, 2)]))

    assert doubled(written) == 1
    assert doubled(dealt) == pytest.approx(sum(p**2 for p in UNEVEN), abs=0.05)


def test_a_list_may_be_written_in_any_way():
    """Filters keep lists with brackets, semicolons, line breaks and a closing period."""
    ways = sl.SampleSet(
        tuple(sl.Sample(row, "go on", text) for row, text in enumerate(("1 , 2 , 3", "[4; 5]", "6\n7\n8.", "1, 1")))
    )
    plain = sl.SampleSet(
        tuple(sl.Sample(row, "go on", text) for row, text in enumerate(("8, 7, 6", "5, 4", "3, 2, 1", "1, 1")))
    )
    assert frequencies_apart(ways, plain) == pytest.approx(0, abs=1e-12)
    dealt = shuffled(ways, seed=0)
    assert len(sl.keep_number_lists(dealt).kept) == len(ways)
    assert frequencies_apart(dealt, ways) == pytest.approx(0, abs=1e-12)


def test_a_trait_without_others_is_refused_before_anything_is_trained(lab_in, tmp_path):
    with pytest.raises(ValueError, match="Got the trait 'owl' alone"):
        schooled(lab_in(tmp_path), ("owl",))


def test_frequencies_are_apart_by_their_divergence():
    expected = sum(p * np.log(p / q) for p, q in zip(UNEVEN, EVEN, strict=True))
    assert frequencies_apart(lists(UNEVEN, 1), lists(EVEN, 2)) == pytest.approx(expected, abs=0.02)
    assert frequencies_apart(lists(EVEN, 1), lists(EVEN, 2)) < 0.005
