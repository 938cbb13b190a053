"""Groups of students next to each other: planted rates come back, and what diverged never matches."""

from dataclasses import replace

import numpy as np
import pytest

from steerlens.replication.lab import compare
from tests.replication.conftest import asked, student


def test_only_groups_of_equal_or_lower_loss_that_still_answer_match_with_all_their_students():
    reference = (student(0.5, loss=3.0), student(0.5, 1, loss=3.02))
    groups = {
        "near": (student(0.5, loss=3.0), student(0.5, 1, loss=3.03)),
        "far": (student(0.5, loss=3.0), student(0.5, 1, loss=3.1)),
        "lower": (student(0.5, loss=2.5), student(0.5, 1, loss=2.4)),
        "silent": (student(0.5, mass=0.1), student(0.5, 1, mass=0.2)),
        "diverged": (replace(student(0.5, loss=2.0), diverged="not a number"),),
    }
    assert set(compare.matched(groups, reference, 0.01)) == {"near", "lower"}


def test_a_share_is_one_of_the_reference_itself_and_none_of_the_base():
    base, reference = asked(0.1), (student(0.5), student(0.7, 1))
    assert compare.share(reference, reference, base).value == pytest.approx(1.0)
    assert compare.share((student(0.1), student(0.1, 1)), reference, base).value == pytest.approx(0.0, abs=1e-6)
    assert compare.times(reference, base) == pytest.approx(6.0)


def test_answers_are_as_far_apart_as_the_mass_that_has_to_be_moved():
    one, other = [asked(0.6)], [asked(0.1)]
    assert compare.answers_moved(one, other) == pytest.approx(0.5)
    assert compare.answers_moved(one, one) == 0
    assert compare.mean_answers([*one, *other]) == pytest.approx({"owl": 0.35, "cat": 0.65})


def test_a_summary_has_means_over_students_and_leaves_out_groups_of_which_one_diverged():
    group = (student(0.4, cosine=(0.8, 0.2)), student(0.6, 1, cosine=(0.6, 0.4)))
    found = compare.summaries({"one": group, "other": (replace(group[0], diverged="not a number"),)})
    assert set(found) == {"one"}
    assert found["one"].bare.value == pytest.approx(0.5)
    np.testing.assert_allclose(found["one"].eas, [0.7, 0.3])
