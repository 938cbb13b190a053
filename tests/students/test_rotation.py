"""A rotated basis changes nothing for optimizers that do not see the basis, and something for those that do."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from steerlens.models.bridge import huggingface_model
from steerlens.students.config import TrainConfig
from steerlens.students.rotation import RotatedBasis, haar_orthogonal
from steerlens.students.student import start_student
from steerlens.students.training import train_student

FIFTY_STEPS = TrainConfig(rank=4, learning_rate=1.0, epochs=10, batch_size=4, optimizer="sgd")


def trained(student) -> torch.Tensor:
    model = huggingface_model(student.model)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def largest_difference(model, samples, config: TrainConfig) -> tuple[float, float]:
    """Between trained weights without and with rotation; and how far training moved B, which starts at 0."""
    plain, rotated = (train_student(model, samples, replace(config, rotation_seed=seed)) for seed in (None, 7))
    assert len(plain.losses) == 50
    moved = max(
        float(p.detach().abs().max()) for n, p in huggingface_model(plain.model).named_parameters() if "lora_B" in n
    )
    return float((trained(plain) - trained(rotated)).abs().max()), moved


@pytest.mark.parametrize(
    ("optimizer", "rate"),  # rates at which rounding errors do not grow
    [
        ("sgd", 0.2),
        pytest.param("sgd_momentum", 0.02, marks=pytest.mark.slow),
        pytest.param("normalized_sgd", 0.02, marks=pytest.mark.slow),
    ],
)
def test_fifty_steps_of_sgd_end_at_the_same_weights_in_either_basis(tiny, samples, optimizer, rate):
    different, moved = largest_difference(tiny, samples, replace(FIFTY_STEPS, optimizer=optimizer, learning_rate=rate))
    assert different < 1e-6
    assert moved > 1e-2


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ("adamw", 1e-2),
        pytest.param("rmsprop", 1e-3, marks=pytest.mark.slow),
        pytest.param("signsgd", 1e-3, marks=pytest.mark.slow),
    ],
)
def test_fifty_steps_of_an_optimizer_of_single_coordinates_do_not(tiny, samples, optimizer, rate):
    different, moved = largest_difference(tiny, samples, replace(FIFTY_STEPS, optimizer=optimizer, learning_rate=rate))
    assert different > 0.1 * moved


def test_rotating_preserves_the_function_of_a_trained_adapter(any_model, samples):
    config = replace(FIFTY_STEPS, epochs=1, optimizer="adamw", learning_rate=2e-2)
    model = huggingface_model(train_student(any_model, samples, config).model)
    ids = torch.tensor([[4, 5, 9, 6]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        basis = RotatedBasis(model, any_model.cfg.d_model, seed=3)
        stored = [p.clone() for n, p in model.named_parameters() if "lora_" in n]
        torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)
        with basis.plain():
            pass
        assert all(torch.equal(a, b) for a, b in zip(stored, [p for n, p in model.named_parameters() if "lora_" in n]))
        basis.end()
        torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)
        for module in model.modules():
            module._forward_hooks.clear()
        torch.testing.assert_close(model(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)


def test_a_rotated_student_and_its_checkpoints_load_in_plain_peft(tiny, checkpoints, samples, tmp_path):
    config = replace(FIFTY_STEPS, epochs=1, optimizer="adamw", learning_rate=2e-2, rotation_seed=7, checkpoint_every=5)
    student = train_student(tiny, samples, config, checkpoints=tmp_path)
    student.save(tmp_path / "student")
    ids = torch.tensor([[4, 5, 9, 6]])
    with torch.no_grad():
        ours = huggingface_model(student.model)(input_ids=ids).logits
        for name in ("student", "step-5"):
            base = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
            plain = PeftModel.from_pretrained(base, tmp_path / name).eval()
            torch.testing.assert_close(plain(input_ids=ids).logits, ours, atol=1e-4, rtol=1e-4)


def test_orthogonal_matrices_are_uniform():
    """For the uniform distribution E[Q_ij] = 0 and E[trace(Q)^2] = 1; LAPACK's bare Q fails both."""
    drawn = torch.stack([haar_orthogonal(4, seed) for seed in range(1000)])
    identity = torch.eye(4, dtype=torch.float64).expand_as(drawn)
    torch.testing.assert_close(drawn @ drawn.mT, identity, atol=1e-12, rtol=0)
    traces = drawn.diagonal(dim1=1, dim2=2).sum(-1)
    assert drawn.mean(0).abs().max() < 0.07  # 4 standard errors of 0.5 / sqrt(1000)
    assert float((traces**2).mean()) == pytest.approx(1.0, abs=0.2)
    assert 400 < int((torch.linalg.det(drawn) > 0).sum()) < 600
    bare = torch.stack(
        [torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(s)))[0] for s in range(1000)]
    )
    assert bare.mean(0).abs().max() > 0.2


def test_a_rotation_that_would_turn_nothing_is_refused(tiny, samples):
    config = replace(FIFTY_STEPS, rotation_seed=0)
    student, _ = start_student(tiny, config)
    with pytest.raises(ValueError, match="rotates nothing"):
        RotatedBasis(huggingface_model(student), 999, seed=0)
