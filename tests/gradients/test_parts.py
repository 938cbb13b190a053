"""A streamed trace is the trace, without ever being whole in memory."""

from dataclasses import replace

import pytest
import torch

from steerlens.gradients.parts import TraceParts
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.trace import GradientTrace
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student

CONFIG = TrainConfig(rank=2, learning_rate=1e-2, epochs=3, batch_size=4)


class Killed(BaseException):
    """Stands for a kill."""


def same(one: GradientTrace, other: GradientTrace) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("pull", "cosine", "norm")]
    return one.layers == other.layers and all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in pairs)


@pytest.fixture
def whole(tiny, vector, samples) -> GradientTrace:
    recorder = trace_gradients(tiny, vector)
    train_student(tiny, samples, CONFIG, on_start=recorder.watch, on_step=recorder.record)
    return recorder.trace


def test_parts_together_are_the_trace_that_was_held_in_memory(tiny, vector, samples, whole, tmp_path):
    recorder = trace_gradients(tiny, vector, directory=tmp_path, part_steps=4)
    held = []

    def on_step(step) -> None:
        recorder.record(step)
        held.append(len(recorder._steps))

    train_student(tiny, samples, CONFIG, on_start=recorder.watch, on_step=on_step)
    parts = TraceParts(tmp_path)
    assert max(held) < 4
    assert [len(part.pull) for part in parts] == [4, 4, 1]
    assert same(parts.whole(), whole)
    assert same(recorder.trace, whole)
    assert torch.equal(parts.mean_pull, whole.mean_pull)


def test_a_resumed_training_has_the_trace_of_an_uninterrupted_one(tiny, vector, samples, whole, tmp_path):
    config = replace(CONFIG, state_every=2)

    def train(kill_at: int | None) -> GradientTrace:
        recorder = trace_gradients(tiny, vector, directory=tmp_path / "trace", part_steps=3)

        def on_update(step) -> None:
            if step.step == kill_at:
                raise Killed

        train_student(
            tiny,
            samples,
            config,
            on_start=recorder.watch,
            on_step=recorder.record,
            on_update=on_update,
            checkpoints=tmp_path / "state",
        )
        return recorder.trace

    for step in (0, 1, 4, 7):
        with pytest.raises(Killed):
            train(step)
    assert same(train(None), whole)
    assert same(train(None), whole)  # nothing is left to train


def test_a_resumed_training_without_its_first_steps_is_refused(tiny, vector, samples, tmp_path):
    config = replace(CONFIG, state_every=2)

    def kill(step) -> None:
        if step.step == 5:
            raise Killed

    for directory, message in (
        (None, "has none of the steps before"),
        (tmp_path / "t", "holds 0 steps, but .* step 4"),
    ):
        with pytest.raises(Killed):
            train_student(tiny, samples, config, checkpoints=tmp_path / "state", on_update=kill)
        recorder = trace_gradients(tiny, vector, directory=directory)
        with pytest.raises(ValueError, match=message):
            train_student(
                tiny,
                samples,
                config,
                checkpoints=tmp_path / "state",
                on_start=recorder.watch,
                on_step=recorder.record,
            )


def test_the_trace_of_another_vector_is_not_gone_on_with(tiny, vector, tmp_path):
    trace_gradients(tiny, vector, directory=tmp_path)
    with pytest.raises(ValueError, match=r"trace of another vector \(other: directions\).*another directory"):
        trace_gradients(tiny, 2.0 * vector, directory=tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no streamed trace"):
        TraceParts(tmp_path / "nothing")
