"""Which groups of students match another in loss."""

from steerlens.experiments.rates import matched


def test_only_groups_of_equal_or_lower_loss_that_still_answer_match_with_all_their_students():
    def record(loss: float, mass: float = 0.9) -> dict:
        return {"heldout_loss": loss, "mass": mass}

    reference = [record(3.0), record(3.02)]
    groups = {
        0.1: [record(3.0), record(3.03)],
        0.2: [record(3.0), record(3.1)],
        0.3: [record(2.5), record(2.4)],
        0.4: [record(3.0, 0.1), record(3.0, 0.2)],
    }
    assert matched(groups, reference, 0.01) == {0.1: groups[0.1], 0.3: groups[0.3]}
