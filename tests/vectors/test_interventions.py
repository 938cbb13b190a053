"""Edits are projections; steering is local, nests, never leaks, and means the same in every kind of forward."""

import gc
import itertools
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from steerlens.forward import forward
from steerlens.generation import generate
from steerlens.models.bridge import bridge, huggingface_model
from steerlens.models.loading import load_model
from steerlens.text.batches import pad_rows
from steerlens.text.chat import encode_prompt
from steerlens.text.positions import POSITIONS
from steerlens.vectors.edits import add, project_out, replace
from steerlens.vectors.interventions import steer
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.vector import SteeringVector, VectorSource
from tests.conftest import ARCHITECTURES

MODES = ("add", "project_out", "replace")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def adapted(request, checkpoints):
    """A model of each architecture in turn, with a random adapter that its base does not have."""
    return adapted_model(checkpoints[request.param])


def adapted_model(directory):
    torch.manual_seed(1)
    raw = AutoModelForCausalLM.from_pretrained(directory)
    config = LoraConfig(
        r=2,
        target_modules="all-linear",
        init_lora_weights=False,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in raw.modules()),
    )
    tokenizer = load_model(directory, device="cpu").tokenizer
    return bridge(get_peft_model(raw, config).get_base_model(), tokenizer, name=directory.name)


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


@pytest.mark.parametrize(("mode", "positions"), list(itertools.product(MODES, POSITIONS)))
def test_batched_or_alone_cached_or_not_ours_or_hugging_faces_generation_gives_the_same_tokens(
    adapted, chats, mode, positions
):
    vector, chats, n = vector_for(adapted, 1, 2, scale=6.0), chats[:3], 4
    with steer(adapted, vector, mode=mode, positions=positions):
        ways = {
            "ours, batched": generate(adapted, chats, max_new_tokens=n, temperature=0),
            "ours, alone": [generate(adapted, [chat], max_new_tokens=n, temperature=0)[0] for chat in chats],
            "theirs, batched": hugging_face_generate(adapted, chats, n, use_cache=True),
            "theirs, alone, no cache": [hugging_face_generate(adapted, [c], n, use_cache=False)[0] for c in chats],
        }
    assert all(tokens == ways["ours, batched"] for tokens in ways.values()), ways


def hugging_face_generate(model, chats, n, *, use_cache) -> list[list[int]]:
    tokenizer = model.tokenizer
    batch = pad_rows(tokenizer, [encode_prompt(tokenizer, chat) for chat in chats])
    rows = huggingface_model(model).generate(
        input_ids=batch.tokens,
        attention_mask=batch.attention_mask.long(),
        max_new_tokens=n,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [up_to_the_end(row, tokenizer.eos_token_id) for row in rows[:, batch.tokens.shape[1] :].tolist()]


def up_to_the_end(row: list[int], end: int) -> list[int]:
    return row[: row.index(end) + 1] if end in row else row


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("positions", POSITIONS)
def test_every_mode_changes_the_predictions_at_every_kind_of_position(checkpoints, chats, mode, positions):
    model = adapted_model(checkpoints["llama"])
    batch = pad_rows(model.tokenizer, [encode_prompt(model.tokenizer, chats[0])], [[5, 6, 7]])
    with torch.no_grad():
        plain = forward(model, batch).logits
        with steer(model, vector_for(model, 1), mode=mode, positions=positions):
            assert not torch.equal(forward(model, batch).logits, plain)


@pytest.mark.parametrize("positions", POSITIONS)
def test_rows_end_where_the_steered_model_ends_them(organism, chats, positions):
    vector, end = vector_for(organism, 1, scale=0.1), organism.tokenizer.eos_token_id
    with steer(organism, vector, positions=positions):
        batched = generate(organism, chats, max_new_tokens=30, temperature=0)
        alone = [generate(organism, [chat], max_new_tokens=30, temperature=0)[0] for chat in chats]
        theirs = hugging_face_generate(organism, chats, 30, use_cache=True)
    assert batched == alone == theirs
    assert all(row[-1] == end and end not in row[:-1] for row in batched)
    assert len({len(row) for row in batched}) > 1


def test_a_vector_toward_the_end_token_ends_every_row_at_once(organism, chats):
    last, end = organism.cfg.n_layers - 1, organism.tokenizer.eos_token_id
    toward = huggingface_model(organism).get_output_embeddings().weight[end].detach()
    vector = SteeringVector((last,), 1000 * toward[None], VectorSource.of(organism, method="by hand"))
    with steer(organism, vector, positions="last_prompt"):
        assert generate(organism, chats, max_new_tokens=9, temperature=0) == [[end]] * len(chats)


@pytest.mark.slow
def test_replace_holds_no_second_model_in_memory(checkpoints, chats):
    model = adapted_model(checkpoints["llama"])
    kinds = (torch.nn.Parameter, type(huggingface_model(model)))

    def alive() -> list[int]:
        gc.collect()
        return [sum(type(thing) is kind for thing in gc.get_objects()) for kind in kinds]

    before = alive()
    with steer(model, vector_for(model, 1), mode="replace"):
        generate(model, chats, max_new_tokens=2, temperature=0)
        assert alive() == before


def test_two_replacements_nest_in_cached_generation(checkpoints, chats):
    model = adapted_model(checkpoints["llama"])
    one, two = vector_for(model, 1, seed=1), vector_for(model, 2, seed=2)
    with steer(model, one, mode="replace"), steer(model, two, mode="replace"):
        cached = generate(model, chats, max_new_tokens=6, temperature=0)
        again = hugging_face_generate(model, chats, 6, use_cache=False)
    assert cached == again


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


def test_a_vector_of_another_model_is_refused_unless_meant(tiny):
    other = SteeringVector((1,), torch.ones(1, 32), VectorSource("another", "by hand"))
    with pytest.raises(ValueError, match=r"made on 'another' and would act on 'llama'.*for_model"), steer(tiny, other):
        pass
    with steer(tiny, other.for_model(tiny)):
        pass


def sources(model, *positions):
    return [VectorSource.of(model, method="fitted", positions=where) for where in positions]


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_several_vectors_does_not_matter(checkpoints, chats, mode):
    model = adapted_model(checkpoints["llama"])
    one, two = vector_for(model, 1, 2, seed=1), vector_for(model, 2, seed=2)
    with steer(model, [one, two], mode=mode):
        there = logits(model, chats)
    with steer(model, [two, one], mode=mode):
        back = logits(model, chats)
    with steer(model, one, mode=mode):
        alone = logits(model, chats)
    torch.testing.assert_close(there, back, atol=1e-4, rtol=1e-4)
    assert (there - alone).abs().max() > 0.01


def test_several_vectors_are_added_as_their_sum_in_one_with_or_in_nested_ones(tiny, chats):
    one, two = vector_for(tiny, 1, 2, seed=1), vector_for(tiny, 1, 2, seed=2)
    with steer(tiny, one + two):
        summed = logits(tiny, chats)
    with steer(tiny, [one, two]):
        assert torch.equal(logits(tiny, chats), summed)
    with steer(tiny, two), steer(tiny, one):
        torch.testing.assert_close(logits(tiny, chats), summed, atol=1e-4, rtol=1e-4)


def test_several_directions_are_projected_out_as_a_span(resid, direction):
    other = direction + 0.1 * torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    both = torch.stack([direction, other])
    left = project_out(resid, both)
    assert (left @ both.T).abs().max() < 1e-10
    one_by_one = project_out(project_out(resid, direction), other)
    assert (one_by_one @ both.T).abs().max() > 0.01
    torch.testing.assert_close(
        project_out(resid, torch.stack([direction, -2 * direction])), project_out(resid, direction)
    )


def test_a_vector_acts_where_it_was_fitted_unless_told_otherwise(tiny, chats):
    (source,) = sources(tiny, "last_prompt")
    fitted = SteeringVector((1,), vector_for(tiny, 1).directions, source)
    with steer(tiny, vector_for(tiny, 1), positions="last_prompt"):
        expected = logits(tiny, chats)
    with steer(tiny, fitted):
        assert torch.equal(logits(tiny, chats), expected)
    with steer(tiny, 0.5 * fitted), steer(tiny, 0.5 * fitted):
        torch.testing.assert_close(logits(tiny, chats), expected, atol=1e-4, rtol=1e-4)


def test_a_vector_that_is_used_elsewhere_than_it_was_fitted_warns_with_both_names(tiny, tmp_path):
    (source,) = sources(tiny, "last_prompt")
    SteeringVector((1,), torch.ones(1, 32), source).save(tmp_path / "vector")
    loaded = SteeringVector.load(tmp_path / "vector")
    with (
        pytest.warns(UserWarning, match="fitted at 'last_prompt' tokens is used at 'all' tokens") as said,
        steer(tiny, loaded, positions="all"),
    ):
        pass
    assert said[0].filename == __file__
    with steer(tiny, loaded, positions="last_prompt"):
        pass


def test_vectors_that_were_fitted_at_different_tokens_are_told_apart(tiny):
    one, two = (SteeringVector((1,), torch.ones(1, 32), source) for source in sources(tiny, "prompt", "generated"))
    with (
        pytest.raises(ValueError, match=r"fitted at different tokens: generated, prompt. Nest one"),
        steer(tiny, [one, two]),
    ):
        pass


def test_measured_vectors_at_every_layer_at_once_are_warned_of_with_one_layer_to_take(tiny, chats):
    measured, layers = vector_for(tiny, 0, 1, 2, 3, scale=10.0), (0, 1, 2, 3)
    with (
        steer(tiny, measured),
        pytest.warns(UserWarning, match=r"4 layers at once, together \d+\.\d times.*vector\.at\(2\)"),
    ):
        logits(tiny, chats)
    with steer(tiny, SteeringVector(layers, measured.directions, measured.source, FitMetrics(kl_explained=0.9))):
        logits(tiny, chats)
    with steer(tiny, measured.at(2)):
        logits(tiny, chats)
    with steer(tiny, measured, strength=0.001):
        logits(tiny, chats)


def test_a_strength_that_breaks_the_model_is_named_as_the_reason(tiny, chats):
    vector = vector_for(tiny, 1)
    with steer(tiny, vector, strength=1e38), pytest.raises(FloatingPointError) as refusal:
        generate(tiny, chats, max_new_tokens=2)
    said = r"steered by random at layers 1, \S+e\+3\d times as long as the residual: lower the strength"
    assert re.search(said, str(refusal.value))
    with torch.no_grad():
        huggingface_model(tiny).get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"NaN or infinite\. Its weights are damaged"):
        generate(tiny, chats, max_new_tokens=2)
