"""Edits are projections; steering is local, nests, never leaks, and means the same in every kind of forward."""

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM

from steerlens.forward import forward, generate
from steerlens.models import huggingface_model
from steerlens.prompts.chat import POSITIONS, encode_prompt, pad_rows
from steerlens.vectors.interventions import add, project_out, replace, steer
from steerlens.vectors.vector import SteeringVector, VectorSource


def vector_for(model, *layers: int, scale: float = 3.0, seed: int = 0) -> SteeringVector:
    directions = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(tuple(layers), scale * directions, VectorSource(model.cfg.model_name, "random"))


def logits(model, chats):
    batch = pad_rows(model.tokenizer, [encode_prompt(model.tokenizer, chat) for chat in chats])
    with torch.no_grad():
        return forward(model, batch).logits[batch.attention_mask]


@pytest.fixture
def resid() -> torch.Tensor:
    return torch.randn(3, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def direction() -> torch.Tensor:
    return torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_project_out_leaves_nothing_along_the_direction_and_is_idempotent(resid, direction):
    once = project_out(resid, direction)
    assert (once @ direction).abs().max() < 1e-12
    torch.testing.assert_close(project_out(once, direction), once, atol=1e-12, rtol=0)
    orthogonal = resid - once
    torch.testing.assert_close(orthogonal, (resid @ direction / direction.square().sum())[..., None] * direction)


def test_replace_with_itself_is_the_identity_and_takes_the_bases_component(resid, direction):
    torch.testing.assert_close(replace(resid, direction, resid), resid, atol=1e-12, rtol=0)
    base = resid.flip(0)
    replaced = replace(resid, direction, base)
    torch.testing.assert_close(replaced @ direction, base @ direction)
    torch.testing.assert_close(project_out(replaced, direction), project_out(resid, direction))


def test_add_is_undone_by_its_opposite(resid, direction):
    torch.testing.assert_close(add(add(resid, direction), -direction), resid, atol=1e-12, rtol=0)


def test_logits_are_bit_identical_after_exit_and_after_an_exception(any_model, chats):
    before = logits(any_model, chats)
    with steer(any_model, vector_for(any_model, 1)):
        assert not torch.equal(logits(any_model, chats), before)
    assert torch.equal(logits(any_model, chats), before)
    with pytest.raises(RuntimeError, match="stop"), steer(any_model, vector_for(any_model, 1)):
        raise RuntimeError("stop")
    assert torch.equal(logits(any_model, chats), before)


def test_strength_zero_is_the_identity(any_model, chats):
    before = logits(any_model, chats)
    with steer(any_model, vector_for(any_model, 2), strength=0.0):
        assert torch.equal(logits(any_model, chats), before)


def test_steering_nests_and_adds_up(tiny, chats):
    one, two = vector_for(tiny, 1, seed=1), vector_for(tiny, 1, seed=2)
    with steer(tiny, one), steer(tiny, two):
        nested = logits(tiny, chats)
    with steer(tiny, SteeringVector((1,), one.directions + two.directions, one.source)):
        torch.testing.assert_close(nested, logits(tiny, chats), atol=1e-4, rtol=1e-4)


def test_steering_survives_a_cached_run_inside_it(tiny, chats):
    with steer(tiny, vector_for(tiny, 1)):
        before = logits(tiny, chats)
        tiny.run_with_cache(torch.tensor([[4, 5, 6]]))
        assert torch.equal(logits(tiny, chats), before)


def test_adding_equals_a_hand_written_edit_of_the_raw_model(tiny, checkpoints, chats):
    raw = AutoModelForCausalLM.from_pretrained(checkpoints["llama"]).eval()
    vector = vector_for(tiny, 2)
    raw.model.layers[2].register_forward_hook(lambda _m, _i, output: output + vector.directions[0])
    ids = torch.tensor([encode_prompt(tiny.tokenizer, chats[0])])
    with steer(tiny, vector), torch.no_grad():
        torch.testing.assert_close(huggingface_model(tiny)(input_ids=ids).logits, raw(input_ids=ids).logits)


@pytest.mark.parametrize(("mode", "positions"), list(itertools.product(("add", "project_out"), POSITIONS)))
def test_cached_batched_generation_equals_single_uncached_rows(any_model, chats, mode, positions):
    vector = vector_for(any_model, 1, 2)
    with steer(any_model, vector, mode=mode, positions=positions):
        batched = generate(any_model, chats, max_new_tokens=6, temperature=0.0)
    single = [greedy_without_cache(any_model, vector, chat, 6, mode, positions) for chat in chats]
    assert batched == single


def greedy_without_cache(model, vector, chat, n, mode, positions) -> list[int]:
    """The slow way: one row, no cache, the whole sequence again for every token."""
    tokens = encode_prompt(model.tokenizer, chat)
    new: list[int] = []
    with torch.no_grad(), steer(model, vector, mode=mode, positions=positions):
        for _ in range(n):
            out = huggingface_model(model)(input_ids=torch.tensor([tokens + new]), use_cache=False)
            new.append(int(out.logits[0, -1].argmax()))
            if new[-1] == model.tokenizer.eos_token_id:
                break
    return new


def test_positions_split_the_whole_effect_on_one_token(tiny, chats):
    """Steering the last prompt token alone changes no logits before it, steering the prompt does."""
    batch = pad_rows(tiny.tokenizer, [encode_prompt(tiny.tokenizer, chats[0])])
    with torch.no_grad():
        plain = forward(tiny, batch).logits
        with steer(tiny, vector_for(tiny, 1), positions="last_prompt"):
            last = forward(tiny, batch).logits
        with steer(tiny, vector_for(tiny, 1), positions="generated"):
            generated = forward(tiny, batch).logits
    assert torch.equal(last[0, :-1], plain[0, :-1])
    assert not torch.equal(last[0, -1], plain[0, -1])
    assert torch.equal(generated, plain)


def test_a_vector_of_another_model_is_refused_unless_meant(tiny, checkpoints):
    other = SteeringVector((1,), torch.ones(1, 32), VectorSource("another", "by hand"))
    with pytest.raises(ValueError, match=r"made on 'another' and would act on 'llama'.*for_model"), steer(tiny, other):
        pass
    with steer(tiny, other.for_model(tiny)):
        pass
