"""What is captured is the block's output, whatever the batch, the padding or the bridge."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from steerlens import shared_prompts
from steerlens.models.bridge import huggingface_model
from steerlens.residuals.capture import capture_residuals, mean_residuals, read_residuals
from steerlens.residuals.stream import resume_after, watch_residuals
from steerlens.text.batches import pad_rows
from steerlens.text.chat import assistant, encode_chat, encode_prompt
from steerlens.text.positions import POSITIONS
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource


def blocks_of(raw):
    return raw.transformer.h if hasattr(raw, "transformer") else raw.model.layers


@pytest.mark.parametrize("positions", POSITIONS)
def test_batch_size_padding_side_and_a_shared_beginning_do_not_change_the_answer(
    any_model, chats, positions, monkeypatch
):
    monkeypatch.setattr(shared_prompts, "SHARE_FROM", 1)
    answered = [[*chat, assistant("12 , 7")] for chat in chats]
    alone = capture_residuals(any_model, answered, layers=[0, 3], positions=positions, batch_size=1)
    together = capture_residuals(any_model, answered, layers=[0, 3], positions=positions, batch_size=5)
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-4)
    rows = [encode_chat(any_model.tokenizer, chat) for chat in answered]
    batch = pad_rows(any_model.tokenizer, *zip(*rows, strict=True), side="right")
    with torch.no_grad():
        right = read_residuals(any_model, batch, [0, 3], positions)
    torch.testing.assert_close(torch.stack([right[0], right[3]]), alone, atol=1e-4, rtol=1e-4)


def test_capture_equals_the_raw_models_block_output_and_not_the_last_hidden_state(any_model, checkpoints, chats):
    raw = AutoModelForCausalLM.from_pretrained(checkpoints[any_model.cfg.model_name]).eval()
    ids = torch.tensor([encode_prompt(any_model.tokenizer, chats[0])])
    seen = []
    handle = blocks_of(raw)[3].register_forward_hook(
        lambda _m, _i, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        out = raw(input_ids=ids, output_hidden_states=True)
    handle.remove()
    ours = capture_residuals(any_model, chats[:1], layers=[3], positions="all")[0]
    torch.testing.assert_close(ours, seen[0][0])
    assert (ours - out.hidden_states[-1][0]).abs().max() > 0.1


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_steered_model_is_read_the_same_behind_a_shared_beginning(tiny, chats, positions, monkeypatch):
    vector = SteeringVector((1,), 3 * torch.ones(1, 32), VectorSource("llama", "by hand"))
    plain = capture_residuals(tiny, chats, layers=[3])
    with steer(tiny, vector, positions=positions):
        whole = capture_residuals(tiny, chats, layers=[3])
        monkeypatch.setattr(shared_prompts, "SHARE_FROM", 1)
        torch.testing.assert_close(capture_residuals(tiny, chats, layers=[3]), whole, atol=1e-4, rtol=1e-4)
    assert torch.allclose(plain, whole, atol=1e-2) == (positions == "generated")


def test_blocks_above_the_ones_that_are_read_do_not_run_unless_somebody_else_looks(tiny, chats):
    everything = capture_residuals(tiny, chats, layers=[0, 1, 2, 3])
    huggingface_model(tiny)(input_ids=torch.zeros(1, 1, dtype=torch.long), output_hidden_states=True)  # leaves hooks
    last = tiny.blocks[3].original_component
    ran, forward_of_last = [], type(last).forward
    try:
        type(last).forward = lambda self, *args, **kwargs: ran.append(self) or forward_of_last(self, *args, **kwargs)
        below = capture_residuals(tiny, chats, layers=[0, 2])
        assert ran
        assert last not in ran
        with watch_residuals(tiny, {3: lambda resid: None}):
            watched = capture_residuals(tiny, chats, layers=[0, 2])
        assert last in ran
    finally:
        type(last).forward = forward_of_last
    torch.testing.assert_close(below, everything[[0, 2]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(watched, below, atol=1e-5, rtol=1e-5)


def test_streaming_means_are_the_means_of_what_is_captured(tiny, chats):
    captured = capture_residuals(tiny, chats, layers=[1, 2], positions="prompt")
    means = mean_residuals(tiny, chats, layers=[1, 2], positions="prompt", batch_size=2)
    torch.testing.assert_close(means, captured.double().mean(1).float(), atol=1e-5, rtol=1e-5)


def test_a_layer_out_of_range_says_what_is_allowed(tiny, chats):
    for layer in (4, -1):
        with pytest.raises(ValueError, match=rf"layer={layer} is out of range for 'llama' \(n_layers=4\).*0\.\.3"):
            capture_residuals(tiny, chats, layers=[layer])


def test_generated_positions_need_an_answer(tiny, chats):
    with pytest.raises(ValueError, match="end with an assistant message"):
        capture_residuals(tiny, chats, layers=[0], positions="generated")


def test_watching_detaches_after_an_exception_and_spares_other_hooks(tiny, chats):
    point = tiny.blocks[1].hook_out
    others = []
    handle = point.register_forward_hook(lambda _m, _i, output: others.append(1))
    with pytest.raises(KeyError), watch_residuals(tiny, {1: lambda resid: None}):
        raise KeyError
    assert len(point._forward_hooks) == 1
    capture_residuals(tiny, chats[:1], layers=[1])
    handle.remove()
    assert others == [1]


def test_resuming_after_a_layer_gives_the_full_forwards_logits_bit_for_bit(any_model, chats):
    batch = pad_rows(any_model.tokenizer, [encode_prompt(any_model.tokenizer, chat) for chat in chats])
    inputs = {"input_ids": batch.tokens, "attention_mask": batch.attention_mask.long(), "use_cache": False}
    kept = []
    hf = huggingface_model(any_model)
    with torch.no_grad():
        with watch_residuals(any_model, {2: kept.append}):
            full = hf(**inputs, position_ids=batch.position_ids).logits
        with resume_after(any_model, 2, lambda: kept[0]):
            resumed = hf(**inputs, position_ids=batch.position_ids).logits
        again = hf(**inputs, position_ids=batch.position_ids).logits
    assert torch.equal(full[batch.attention_mask], resumed[batch.attention_mask])
    assert torch.equal(full, again)
