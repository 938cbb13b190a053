"""A long call says what it costs, once; a short one says nothing."""

import pytest
from tqdm.auto import tqdm

from steerlens import cost
from steerlens.cost import Cost, in_words


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])
    return now


def said(clock, capsys, seconds: float, *, disable: bool = False) -> list[str]:
    """Lines about a call of 10 parts, of which 2 took a fifth of `seconds`."""
    with tqdm(total=10, desc="sampling", disable=disable) as progress:
        capsys.readouterr()
        one = Cost(progress, "10 rows", n_parts=10, n_bytes=1.5e9)
        one.after(0)
        clock[0] += cost.MEASURED / 2
        one.after(0.001)  # too short a time to tell
        clock[0] += seconds / 5 - cost.MEASURED / 2
        one.after(2)
        clock[0] += 1000
        one.after(3)
    return [line.strip() for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "rows;" in line]


def test_the_time_of_the_parts_that_are_done_gives_the_time_of_all(clock, capsys):
    expected = "sampling: 10 rows; about 2 minutes, up to 1.5 GB of memory beside the weights."
    assert said(clock, capsys, 120.0) == [expected]


def test_short_calls_and_silent_bars_say_nothing(clock, capsys):
    assert said(clock, capsys, cost.LONG - 1) == []
    assert said(clock, capsys, 120.0, disable=True) == []


@pytest.mark.parametrize(("seconds", "words"), [(45, "45 seconds"), (600, "10 minutes"), (9000, "2.5 hours")])
def test_durations_are_in_the_unit_that_people_use(seconds, words):
    assert in_words(seconds, 0).startswith(f"about {words},")
