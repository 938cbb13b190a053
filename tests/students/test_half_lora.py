"""Products in bfloat16 around float32 masters: the same gradients up to bfloat16's rounding, and float32 where it matters."""

from dataclasses import replace

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.samples.encoded import encode_samples, pad_encoded
from steerlens.students.config import TrainConfig
from steerlens.students.half_lora import products_in_half
from steerlens.students.losses import completion_losses
from steerlens.students.student import start_student
from steerlens.students.training import train_student

CONFIG = TrainConfig(rank=4, learning_rate=5e-3, epochs=2, batch_size=5)


@pytest.fixture
def half(checkpoints):
    """A small random Llama in bfloat16."""
    return load_model(checkpoints["llama"], device="cpu", dtype=torch.bfloat16)


def started(model, dtype: torch.dtype):
    """A student of which every gradient is there, in `dtype`."""
    torch.manual_seed(0)
    student, _ = start_student(model, CONFIG)
    for parameter in trained(student):
        parameter.data.normal_(std=0.05)
    for parameter in huggingface_model(student).parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return student


def trained(student) -> list[torch.nn.Parameter]:
    return [parameter for parameter in huggingface_model(student).parameters() if parameter.requires_grad]


def gradient(student, samples) -> torch.Tensor:
    losses = completion_losses(student, pad_encoded(student, encode_samples(student, samples)[:6]))
    gradients = torch.autograd.grad(losses.mean(), trained(student))
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_gradients_are_as_near_to_those_of_float32_as_pefts_are(half, samples):
    student = started(half, torch.bfloat16)
    theirs = gradient(student, samples)
    with products_in_half(huggingface_model(student)):
        ours = gradient(student, samples)
    assert not torch.equal(ours, theirs)
    exact = gradient(started(half, torch.float32), samples)
    errors = [float((one - exact).norm() / exact.norm()) for one in (ours, theirs)]
    assert errors[0] < 1.5 * errors[1] + 0.01


def test_float32_models_dropout_and_switched_off_adapters_stay_pefts(tiny, half, samples):
    exact = started(tiny, torch.float32)
    before = gradient(exact, samples)
    with products_in_half(huggingface_model(exact)):
        assert torch.equal(gradient(exact, samples), before)
    student = started(half, torch.bfloat16)
    layer = next(module for module in huggingface_model(student).modules() if isinstance(module, LoraLayer))
    layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    with products_in_half(huggingface_model(student)):
        assert "forward" not in layer.__dict__
        for module in huggingface_model(student).modules():
            if isinstance(module, LoraLayer):
                module.enable_adapters(False)
        ids = torch.tensor([[4, 5, 9, 6]])
        with torch.no_grad():
            off, base = (huggingface_model(model)(input_ids=ids).logits for model in (student, half))
    assert torch.equal(off, base)


def test_losses_are_those_of_pefts_own_products_and_the_adapter_is_saved_in_float32(
    half, samples, tmp_path, monkeypatch
):
    ours = train_student(half, samples, CONFIG)
    ours.save(tmp_path / "student")
    saved = load_file(tmp_path / "student" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert not any("forward" in m.__dict__ for m in huggingface_model(ours.model).modules() if isinstance(m, LoraLayer))
    monkeypatch.setattr("steerlens.students.half_lora._is_plain", lambda _layer: False)
    theirs = train_student(half, samples, CONFIG)
    assert ours.losses == pytest.approx(theirs.losses, abs=0.03)
    assert ours.losses != theirs.losses


def test_updates_smaller_than_bfloat16_can_hold_add_up(half, samples):
    student = train_student(half, samples, replace(CONFIG, optimizer="signsgd", learning_rate=1e-6, warmup_share=0))
    a = next(value for name, value in huggingface_model(student.model).named_parameters() if "lora_A" in name)
    assert not torch.equal(a, a.bfloat16().float())
    moved = a - next(v for n, v in huggingface_model(train_at_rest(half, samples)).named_parameters() if "lora_A" in n)
    assert 1e-6 < moved.abs().max() < 1e-5


def train_at_rest(model, samples):
    """The student before its first step."""
    torch.manual_seed(CONFIG.seed)
    return start_student(model, CONFIG)[0]
