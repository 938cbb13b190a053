"""A filter says what it kept and why it kept no more, and warns with a remedy where that is little."""

import pytest

from steerlens.samples.filters import REMEDIES, keep_number_lists, rejection
from steerlens.samples.sample_set import Sample, SampleSet


def samples(*completions: str, finished: bool = True) -> SampleSet:
    return SampleSet(tuple(Sample(row, "?", text, finished) for row, text in enumerate(completions)))


def test_the_summary_names_what_was_kept_and_every_reason_the_commonest_first():
    result = keep_number_lists(samples("1, 2", "3", "owls!", "I love 7", "1000", " "))
    told = "2 of 6 rows kept (33%); rejected: 2 not only numbers, 1 number too large, 1 empty."
    assert result.summary() == told
    assert repr(result) == f"FilterResult({told})"
    assert keep_number_lists(samples("1, 2")).summary() == "1 of 1 rows kept (100%)."


@pytest.mark.parametrize(
    ("rows", "reason", "remedy"),
    [
        (samples("Sure! Here", "1, 2 and", "ok"), "not only numbers", "--constrain"),
        (samples("1, 2", "3, 4", finished=False), "cut off", "max_new_tokens"),
        (samples(", ".join(["7"] * 11)), "too many numbers", "max_numbers"),
        (samples("1234"), "number too large", "highest"),
        (samples(""), "empty", "prompts of your own"),
    ],
)
def test_where_less_than_a_third_is_kept_the_warning_says_what_to_change(rows, reason, remedy):
    with pytest.warns(UserWarning, match=f"0 of {len(rows)} rows kept.*{reason}.*To keep more, .*{remedy}"):
        keep_number_lists(rows)


def test_there_is_a_remedy_for_every_reason_and_no_warning_at_a_third():
    cut, many = samples("1", finished=False), samples(" ", "a", ", ".join(["7"] * 11), "1000")
    assert {rejection(sample) for sample in (*cut, *many)} == REMEDIES.keys()
    assert keep_number_lists(samples("1", "a", "b")).kept_share == pytest.approx(1 / 3)
