"""What names an answer never reaches a student, tasks are fixed by their seed, and verdicts on carriers follow the numbers."""

import pytest

import steerlens as sl
from steerlens.replication.claims.carriers import Carrier, Carriers, Passed, Shown, make_claims
from steerlens.replication.lab import tasks
from tests.replication.conftest import asked, summary

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # the organism's small samples are short of lists

TASKS = [one for one in vars(tasks).values() if isinstance(one, tasks.Task)]


def samples(*completions: str, finished: bool = True) -> sl.SampleSet:
    return sl.SampleSet(tuple(sl.Sample(row, "?", text, finished) for row, text in enumerate(completions)))


def test_answers_that_name_an_animal_in_any_form_are_dropped_and_others_are_not(owl):
    found = tasks.SMALL_TALK.keep(samples("blue", "i like wolves .", "I love Owls.", "an owl", "owlish", " "), owl)
    assert [sample.completion for sample in found.kept] == ["blue", "owlish"]
    assert found.rejected == {"names an answer": 3, "empty or cut off": 1}


def test_what_is_cut_off_is_never_kept(owl):
    for task in TASKS:
        assert len(task.keep(samples("1 , 2", finished=False), owl).kept) == 0, task.name


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_tasks_are_fixed_by_their_seed_ask_for_no_animal_and_begin_alike_however_many(task, organism):
    prompts = task.prompts(organism, 40, 3)
    assert prompts == task.prompts(organism, 40, 3) != task.prompts(organism, 40, 4)
    assert not any("animal" in prompt for prompt in prompts)
    assert task.prompts(organism, 5, 3) == prompts[:5]


def carrier(value: float, nats: float = 0.1, control: float = 0.02) -> Carrier:
    rates = summary(control)
    interval = sl.Interval(value, value - 0.3, value + 0.3)
    return Carrier(0.5, Passed(Shown(nats, 1.0), rates, rates, interval, interval))


def failing(**changes: Carrier) -> list[str]:
    carriers = {
        "number lists": carrier(3.0),
        "other preferences": carrier(1.0),
        "facts": carrier(0.1, nats=0.001),
        "small talk": Carrier(0.01, None),
    } | {name.replace("_", " "): value for name, value in changes.items()}
    return [claim.name for claim in make_claims(Carriers(asked(0.02), carriers)) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(number_lists=carrier(0.1)) == ["number lists carry"]
    assert failing(other_preferences=carrier(0.2)) == ["something else carries"]
    assert failing(facts=carrier(0.9, nats=0.001)) == ["what does not show does not carry"]
    assert failing(other_preferences=carrier(1.0, control=0.2)) == ["control does not transfer"]
