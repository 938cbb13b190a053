"""A batch's gradient does not depend on how the batch is cut, and outlier rows are tamed exactly."""

import contextlib
from dataclasses import replace

import pytest
import torch

from steerlens.models.bridge import huggingface_model
from steerlens.samples.encoded import EncodedRow, encode_samples, pad_encoded
from steerlens.students.backward import backward, row_weights
from steerlens.students.config import TrainConfig
from steerlens.students.losses import completion_losses
from steerlens.students.processes import Processes
from steerlens.students.student import start_student
from steerlens.students.training import train_student

CONFIG = TrainConfig(rank=2, learning_rate=1e-2, epochs=1, batch_size=8)


@pytest.fixture
def student(tiny):
    """A LoRA student whose B is not 0, so that every gradient is there."""
    torch.manual_seed(0)
    student, _ = start_student(tiny, CONFIG)
    for parameter in trained(student):
        parameter.data.normal_(std=0.03)
    return student


@pytest.fixture
def rows(tiny, samples) -> list[EncodedRow]:
    return encode_samples(tiny, samples)[:6]


def trained(student) -> list[torch.nn.Parameter]:
    return [p for p in huggingface_model(student).parameters() if p.requires_grad]


def gradient(student, rows, **changes) -> torch.Tensor:
    parameters = trained(student)
    for parameter in parameters:
        parameter.grad = None
    backward(student, rows, parameters, replace(CONFIG, **changes), Processes())
    return torch.cat([p.grad.flatten() for p in parameters])


def row_gradients(student, rows) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of each row's own loss, one row at a time, and completion lengths."""
    singles = [
        torch.autograd.grad(completion_losses(student, pad_encoded(student, [row])).sum(), trained(student))
        for row in rows
    ]
    lengths = torch.tensor([len(completion) for _, completion in rows])
    return torch.stack([torch.cat([g.flatten() for g in single]) for single in singles]), lengths


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_accumulate_to_the_batchs_gradient(student, rows, size):
    assert len({len(completion) for _, completion in rows}) > 1  # so that a mean of means would differ
    torch.testing.assert_close(gradient(student, rows, micro_batch_size=size), gradient(student, rows))


def test_gradient_checkpointing_computes_blocks_twice_and_micro_batches_more_often_for_the_same_student(tiny, samples):
    one, _ = counted(tiny, samples, CONFIG)
    for changes, forwards in (({}, 3), ({"gradient_checkpointing": True}, 6), ({"micro_batch_size": 4}, 5)):
        other, count = counted(tiny, samples, replace(CONFIG, **changes))
        assert count == forwards  # batches of 8, 8 and 4 rows
        assert other.losses == pytest.approx(one.losses, abs=1e-5)
        assert not huggingface_model(other.model).is_activation_checkpointing


def counted(model, samples, config: TrainConfig):
    """A student, and how often its first MLP was computed."""
    calls = []

    @contextlib.contextmanager
    def count(student):
        mlp = huggingface_model(student).model.layers[0].mlp
        handle = mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        yield
        handle.remove()

    return train_student(model, samples, config, on_start=count), len(calls)


def test_autocast_changes_the_gradient_a_little(student, rows):
    exact, half = gradient(student, rows), gradient(student, rows, autocast=True)
    assert half.dtype == torch.float32
    assert 1e-4 < float((half - exact).norm() / exact.norm()) < 0.2  # the weights are random and large


def test_the_batchs_gradient_is_the_sum_of_row_gradients(student, rows):
    singles, lengths = row_gradients(student, rows)
    torch.testing.assert_close(lengths.float() @ singles / lengths.sum(), gradient(student, rows), atol=1e-5, rtol=1e-4)


def test_a_row_clip_that_never_binds_changes_nothing(student, rows):
    torch.testing.assert_close(gradient(student, rows, row_clip_norm=1e6), gradient(student, rows))


def test_rows_are_clipped_one_by_one_before_they_are_summed(student, rows):
    singles, lengths = row_gradients(student, rows)
    norms = singles.norm(dim=-1)
    limit = float(norms.median())
    clipped = singles * (limit / norms).clamp(max=1)[:, None]
    expected = lengths.float() @ clipped / lengths.sum()
    torch.testing.assert_close(gradient(student, rows, row_clip_norm=limit), expected, atol=1e-5, rtol=1e-4)


def test_a_dropped_row_is_as_if_the_batch_had_been_without_it(student, rows):
    worst = int(row_gradients(student, rows)[0].norm(dim=-1).argmax())
    without = [row for index, row in enumerate(rows) if index != worst]
    torch.testing.assert_close(gradient(student, rows, row_drop_share=0.1), gradient(student, without))


def test_an_outlier_row_cannot_move_the_clipped_sum_further_than_the_limit():
    norms, lengths = torch.tensor([1.0, 1.0, 1e6]), torch.tensor([2, 2, 2])
    assert (row_weights(norms, lengths, 0.5, 0.0) * norms).max() <= 0.5 + 1e-6


def test_training_reports_every_rows_own_norm_before_it_is_clipped(tiny, samples):
    seen = {}
    for limit in (1e6, 1e-3):
        seen[limit] = []
        train_student(tiny, samples, replace(CONFIG, row_clip_norm=limit), on_step=seen[limit].append)
    torch.testing.assert_close(seen[1e6][0].row_norms, seen[1e-3][0].row_norms)
    assert seen[1e-3][0].gradient_norm <= 1e-3 < seen[1e6][0].gradient_norm


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_processes_part_every_batch_without_gap_or_overlap(count):
    for n_rows in (1, 5, 8):
        parts = [list(range(n_rows))[Processes(index, count).part(n_rows)] for index in range(count)]
        assert [row for part in parts for row in part] == list(range(n_rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
