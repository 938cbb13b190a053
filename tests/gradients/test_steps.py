"""Where a step goes is measured as it is: by the change of the residuals that it makes."""

from dataclasses import replace

import pytest
import torch

from steerlens.gradients.counterfactual import remove_component, together, without_component
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.steps import StepTrace, trace_steps
from steerlens.models.bridge import huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import mean_residuals
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.chat import as_chat
from steerlens.text.number_lists import number_prompts

CONFIG = TrainConfig(rank=2, learning_rate=1e-2, epochs=2, batch_size=5, warmup_share=0.5)


@pytest.fixture
def probes() -> dict:
    return {
        "numbers": [as_chat(prompt) for prompt in number_prompts(4, ORGANISM, seed=5)],
        "question": [as_chat("what is your favorite animal ?")],
    }


def test_the_moves_of_all_steps_add_up_to_what_training_has_moved(tiny, vector, samples, probes):
    recorder = trace_steps(tiny, vector, probes)
    student = train_student(tiny, samples, CONFIG, on_step=recorder.before, on_update=recorder.after)
    trace = recorder.trace
    assert trace.steps == (0, 1, 2, 3)
    for index, chats in enumerate(probes.values()):
        before, after = (mean_residuals(m, chats, layers=vector.layers) for m in (tiny, student.model))
        moved = ((after - before) * vector.unit).sum(-1)
        torch.testing.assert_close(trace.along[:, index].sum(0), moved, atol=1e-4, rtol=1e-3)
    assert trace.along.abs().min() > 0


def test_watching_steps_does_not_change_the_training_and_can_be_rare(tiny, vector, samples, probes):
    recorder = trace_steps(tiny, vector, probes, every=3)
    watched = train_student(tiny, samples, CONFIG, on_step=recorder.before, on_update=recorder.after)
    assert watched.losses == train_student(tiny, samples, CONFIG).losses
    assert recorder.trace.steps == (0, 3)


def test_a_step_trace_survives_its_file(tiny, vector, samples, probes, tmp_path):
    recorder = trace_steps(tiny, vector, probes, every=2)
    train_student(tiny, samples, CONFIG, on_step=recorder.before, on_update=recorder.after)
    recorder.trace.save(tmp_path / "steps.safetensors")
    loaded = StepTrace.load(tmp_path / "steps.safetensors")
    assert (loaded.layers, loaded.probes, loaded.steps) == ((1, 3), ("numbers", "question"), (0, 2))
    assert torch.equal(loaded.along, recorder.trace.along)


def test_probes_without_chats_are_refused(tiny, vector, probes):
    with pytest.raises(ValueError, match=r"probes\['none'\] is empty. Give at least one"):
        trace_steps(tiny, vector, {**probes, "none": []})


def test_removing_a_component_leaves_none_of_it_and_nothing_else_changed():
    gradient = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    left = remove_component(gradient, direction, mask)
    assert (left[mask] @ direction).abs().max() < 1e-12
    assert torch.equal(left[~mask], gradient[~mask])
    torch.testing.assert_close(remove_component(left, direction, mask), left)


def test_without_the_component_nothing_pulls_along_the_vector_and_the_forward_pass_is_as_it_was(tiny, vector, samples):
    first = {}
    for name, extra in (("plain", ()), ("without", (without_component(vector),))):
        recorder = trace_gradients(tiny, vector)
        student = train_student(
            tiny, samples, CONFIG, on_start=together(*extra, recorder.watch), on_step=recorder.record
        )
        first[name] = (recorder.trace, student)
    plain, without = first["plain"], first["without"]
    assert without[1].losses[0] == plain[1].losses[0]
    assert without[1].losses[1] != plain[1].losses[1]
    assert without[0].pull.abs().max() < 1e-3 * plain[0].pull.abs().max()


def test_gradients_are_edited_where_the_vector_is_and_nowhere_above(tiny, vector, samples):
    """Removing at layer 1 changes the gradients of blocks 0 and 1 and leaves those of blocks 2 and 3."""
    seen = {}

    def keep(name: str):
        def on_step(step) -> None:
            parameters = huggingface_model(step.model).named_parameters()
            seen.setdefault(name, {n: p.grad.clone() for n, p in parameters if p.grad is not None})

        return on_step

    config = replace(CONFIG, method="full", clip_norm=None)
    train_student(tiny, samples, config, on_step=keep("plain"))
    train_student(tiny, samples, config, on_start=without_component(vector.at(1)), on_step=keep("without"))
    for name, plain in seen["plain"].items():
        unchanged = torch.equal(plain, seen["without"][name])
        if "layers.0" in name or "layers.1" in name:
            assert not unchanged, name
        if "layers.2" in name or "layers.3" in name:
            assert unchanged, name
