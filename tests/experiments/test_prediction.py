"""Shares of groups that are left out."""

import numpy as np
import pytest

from steerlens.experiments.zoo.prediction import left_out_shares


def test_a_group_is_judged_by_the_others_with_its_label_and_never_by_itself():
    labels, groups = ["yes", "yes", "yes", "no", "no"], ["a", "a", "b", "a", "c"]
    happened = np.array([True, True, False, False, False])
    found = left_out_shares(labels, happened, groups)
    assert found == pytest.approx([1 / 3, 1 / 3, 3 / 4, 1 / 3, 1 / 3])


def test_a_label_that_no_other_group_has_gives_a_half():
    assert left_out_shares(["x", "y", "y"], np.array([True, True, True]), ["a", "b", "b"]) == pytest.approx([0.5] * 3)
