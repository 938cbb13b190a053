"""Blocks below the lowest trained one run once a row, and the student is the one that it would have been."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from steerlens.forward import completion_logits
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.residuals.stream import watch_residuals
from steerlens.samples.encoded import encode_samples, pad_encoded
from steerlens.students import lower_blocks
from steerlens.students.config import TrainConfig
from steerlens.students.lower_blocks import lower_blocks_run_once, lowest_trained_block
from steerlens.students.student import start_student
from steerlens.students.training import train_student

CONFIG = TrainConfig(rank=4, layers=(2, 3), learning_rate=5e-3, epochs=3, batch_size=4)
N_BATCHES = 5  # of 20 rows


@pytest.fixture
def half(checkpoints):
    """A small random Llama in bfloat16."""
    return load_model(checkpoints["llama"], device="cpu", dtype=torch.bfloat16)


class Runs:
    """How often the first and the last block's MLP ran."""

    def __init__(self) -> None:
        self.counts = {0: 0, 3: 0}

    @contextlib.contextmanager
    def watch(self, student) -> Iterator[None]:
        mlps = {layer: student.blocks[layer].original_component.mlp.act_fn for layer in self.counts}
        originals = {layer: mlp.forward for layer, mlp in mlps.items()}

        def counted(layer: int):
            def forward(x):
                self.counts[layer] += 1
                return originals[layer](x)

            return forward

        for layer, mlp in mlps.items():
            mlp.__dict__["forward"] = counted(layer)
        yield
        for mlp in mlps.values():
            del mlp.__dict__["forward"]


def test_lower_blocks_run_no_more_once_training_begins_and_the_student_is_the_same(half, samples, monkeypatch):
    runs, all_runs = Runs(), Runs()
    once = train_student(half, samples, CONFIG, on_start=runs.watch)
    monkeypatch.setattr(lower_blocks, "SHARE_OF_FREE", 0.0)
    always = train_student(half, samples, CONFIG, on_start=all_runs.watch)
    assert runs.counts == {0: 0, 3: 3 * N_BATCHES}
    assert all_runs.counts == {0: 3 * N_BATCHES, 3: 3 * N_BATCHES}
    assert once.losses == pytest.approx(always.losses, abs=0.02)


def test_gradients_above_are_those_of_the_whole_model(half, samples):
    torch.manual_seed(0)
    student, _ = start_student(half, CONFIG)
    parameters = [p for p in huggingface_model(student).parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data.normal_(std=0.05)
    rows = encode_samples(student, samples)
    assert lowest_trained_block(student) == 2

    def gradient() -> torch.Tensor:
        logits = completion_logits(student, pad_encoded(student, rows[:4]))
        return torch.cat([g.flatten() for g in torch.autograd.grad(logits.float().square().mean(), parameters)])

    whole = gradient()
    with lower_blocks_run_once(student, rows, 4):
        resumed = gradient()
    assert float((resumed - whole).norm() / whole.norm()) < 0.06


def test_other_rows_and_rows_that_a_hook_looks_at_below_run_in_full(half, samples):
    train, other = samples.split(4)
    student, _ = start_student(half, CONFIG)
    rows, seen = encode_samples(student, train), []
    probe = pad_encoded(student, encode_samples(student, other))
    with torch.no_grad():
        before = completion_logits(student, probe)
        with lower_blocks_run_once(student, rows, 4):
            assert torch.equal(completion_logits(student, probe), before)
            with watch_residuals(student, {0: seen.append}):
                completion_logits(student, pad_encoded(student, rows[:4]))
            with watch_residuals(student, {1: seen.append}):
                completion_logits(student, pad_encoded(student, rows[:4]))
        with watch_residuals(student, {0: seen.append, 1: seen.append}):
            completion_logits(student, pad_encoded(student, rows[:4]))
    mask = pad_encoded(student, rows[:4]).attention_mask
    for inside, plain in zip(seen[:2], seen[2:], strict=True):
        assert float((inside[mask] - plain[mask]).float().norm() / plain[mask].float().norm()) < 0.01


def test_nothing_is_kept_where_a_row_is_dropped_from_at_random_or_float32_is_to_stay_the_same(
    checkpoints, tiny, samples
):
    gpt2 = load_model(checkpoints["gpt2"], device="cpu", dtype=torch.bfloat16)
    for model in (gpt2, tiny):
        student, _ = start_student(model, CONFIG)
        with lower_blocks_run_once(student, encode_samples(student, samples), 4):
            assert "forward" not in student.blocks[0].original_component.__dict__


def test_a_killed_training_goes_on_to_the_same_student(half, samples, tmp_path):
    config = replace(CONFIG, state_every=2)
    whole = train_student(half, samples, config, checkpoints=tmp_path / "whole")

    def stop(step) -> None:
        if step.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(half, samples, config, checkpoints=tmp_path / "cut", on_step=stop)
    assert train_student(half, samples, config, checkpoints=tmp_path / "cut").losses == whole.losses


def test_only_the_named_blocks_get_lora_and_a_block_that_is_not_there_is_refused(half, samples):
    for maps in (("all-linear",), ("v_proj",)):
        student, _ = start_student(half, replace(CONFIG, layers=(1, 3), target_modules=maps))
        names = [name for name, p in huggingface_model(student).named_parameters() if p.requires_grad]
        assert {name.split("layers.")[1][0] for name in names} == {"1", "3"}
    with pytest.raises(ValueError, match=r"layer=4 is out of range for 'llama' \(n_layers=4\)"):
        train_student(half, samples, replace(CONFIG, layers=(4,)))
    with pytest.raises(ValueError, match="which blocks get LoRA matrices, but method='full' has none"):
        replace(CONFIG, method="full")
