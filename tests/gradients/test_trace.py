"""What is traced is the derivative of each row's loss along the vector."""

from dataclasses import replace

import pytest
import torch

from steerlens.forward import completion_logits, forward
from steerlens.gradients.projection import project_gradients
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.trace import GradientTrace
from steerlens.students.config import TrainConfig
from steerlens.students.losses import completion_losses
from steerlens.students.step import TrainStep
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt
from steerlens.text.positions import POSITIONS
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

CONFIG = TrainConfig(rank=2, learning_rate=1e-2, epochs=2, batch_size=4)


def traced(model, vector, samples, config=CONFIG, positions="all") -> GradientTrace:
    recorder = trace_gradients(model, vector, positions=positions)
    train_student(model, samples, config, on_start=recorder.watch, on_step=recorder.record)
    return recorder.trace


@pytest.mark.parametrize("positions", POSITIONS)
def test_pull_equals_finite_differences_of_the_loss_along_the_vector(tiny, vector, samples, positions):
    """At step 0 the student still is the base, so steering the base a little gives the same derivative."""
    trace = traced(tiny, vector, samples, positions=positions)
    first = torch.randperm(10, generator=torch.Generator().manual_seed(0))[:4].tolist()
    rows = [samples.samples[i] for i in first]
    batch = pad_rows(
        tiny.tokenizer,
        [encode_prompt(tiny.tokenizer, as_chat(row.prompt)) for row in rows],
        [encode_completion(tiny.tokenizer, row.completion) for row in rows],
    )
    for index, layer in enumerate(vector.layers):
        unit = SteeringVector((layer,), vector.at(layer).unit, vector.source)
        step, losses = 1e-2, []
        for sign in (1, -1):
            with torch.no_grad(), steer(tiny, unit, strength=sign * step, positions=positions):
                losses.append(completion_losses(tiny, batch))
        derivative = (losses[0] - losses[1]) / (2 * step)
        torch.testing.assert_close(trace.pull[0, :, index], -derivative, atol=2e-3, rtol=2e-2)


def test_pull_flips_its_sign_with_the_vector_and_does_not_depend_on_its_length(tiny, vector, samples):
    once, flipped = traced(tiny, vector, samples), traced(tiny, -2.0 * vector, samples)
    torch.testing.assert_close(once.pull, -flipped.pull, equal_nan=True)
    torch.testing.assert_close(once.norm, flipped.norm, equal_nan=True)
    torch.testing.assert_close(once.cosine * once.norm, once.pull, equal_nan=True)


def test_tracing_does_not_change_the_training(tiny, vector, samples):
    steps: list[TrainStep] = []
    plain = train_student(tiny, samples, CONFIG, on_step=steps.append)
    recorder = trace_gradients(tiny, vector)
    watched = train_student(tiny, samples, CONFIG, on_start=recorder.watch, on_step=recorder.record)
    assert plain.losses == watched.losses
    assert len(steps) == recorder.trace.pull.shape[0] == 6
    assert recorder.trace.pull[2].isnan().any(-1).sum() == 2  # the third batch of 10 rows has two


def test_row_pulls_do_not_depend_on_the_batch_size(tiny, vector, samples):
    small, large = (traced(tiny, vector, samples, replace(CONFIG, batch_size=n, epochs=1)) for n in (5, 10))
    torch.testing.assert_close(small.pull[0], large.pull[0, :5], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("changes", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}, {"row_clip_norm": 0.1}])
def test_rows_are_traced_alike_however_the_batch_is_cut(tiny, vector, samples, changes):
    plain, cut = traced(tiny, vector, samples), traced(tiny, vector, samples, replace(CONFIG, **changes))
    torch.testing.assert_close(cut.pull[0], plain.pull[0], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(cut.norm[0], plain.norm[0], atol=1e-5, rtol=1e-3)
    assert cut.pull.shape == plain.pull.shape


def test_project_gradients_against_a_hand_calculation():
    gradients = torch.tensor([[[1.0, 0.0], [3.0, 4.0]], [[0.0, 2.0], [5.0, 5.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    result = project_gradients(gradients, torch.tensor([0.0, 2.0]), mask)
    torch.testing.assert_close(result.pull, torch.tensor([-4.0, -2.0]))
    torch.testing.assert_close(result.norm, torch.tensor([32**0.5, 2.0]))
    torch.testing.assert_close(result.cosine, torch.tensor([-4 / 32**0.5, -1.0]))


def test_a_trace_survives_its_file(tiny, vector, samples, tmp_path):
    trace = traced(tiny, vector, samples)
    trace.save(tmp_path / "trace.safetensors")
    loaded = GradientTrace.load(tmp_path / "trace.safetensors")
    assert loaded.layers == trace.layers
    torch.testing.assert_close(loaded.pull, trace.pull, equal_nan=True)
    expected = sum(trace.pull[step, :, 0].nanmean() for step in range(6))
    torch.testing.assert_close(loaded.cumulative_pull[-1, 0], expected)


def test_the_sum_of_row_gradients_is_the_batch_gradient(tiny, samples):
    """Gradients of a row at the residual do not mix with other rows."""
    rows = samples.samples[:3]
    batch = pad_rows(
        tiny.tokenizer,
        [encode_prompt(tiny.tokenizer, as_chat(row.prompt)) for row in rows],
        [encode_completion(tiny.tokenizer, row.completion) for row in rows],
    )
    assert completion_logits(tiny, batch).shape[0] == int(batch.completion_mask.sum())
    parameter = tiny.blocks[0].original_component.mlp.down_proj.weight
    losses = completion_losses(tiny, batch)
    singles = [torch.autograd.grad(loss, parameter, retain_graph=True)[0] for loss in losses]
    (whole,) = torch.autograd.grad(losses.sum(), parameter)
    torch.testing.assert_close(sum(singles), whole, atol=1e-5, rtol=1e-4)
    assert forward(tiny, batch).logits.shape[1] == batch.tokens.shape[1]
