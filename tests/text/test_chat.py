"""Chats become the same tokens alone and padded, and a context's fingerprint follows what the model sees."""

import datetime

import pytest
import torch

from steerlens.contract.architectures import ARCHITECTURES
from steerlens.contract.architectures import build_tokenizer as build_real_tokenizer
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.text.chat import (
    PLAIN_TEXT_TEMPLATE,
    SYSTEM_IN_USER_TURN,
    as_chat,
    assistant,
    chat_fingerprint,
    encode_chat,
    encode_prompt,
    pad_rows,
    render,
    user,
)


@pytest.fixture
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_find_prompt_completion_and_last_prompt_token_on_either_side(tokenizer, side):
    batch = pad_rows(tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]], side=side)
    for row, (prompt, completion) in enumerate([([4, 5, 6], [8]), ([7], [9, 10])]):
        assert batch.tokens[row][batch.prompt_mask[row]].tolist() == prompt
        assert batch.tokens[row][batch.completion_mask[row]].tolist() == completion
        assert batch.tokens[row, batch.last_prompt[row]] == prompt[-1]
        assert batch.position_ids[row][batch.attention_mask[row]].tolist() == list(range(len(prompt + completion)))
        predicted_from = batch.tokens[row][batch.prediction_mask[row]].tolist()
        assert predicted_from == [prompt[-1], *completion[:-1]]


def test_position_masks_partition_the_attended_tokens(tokenizer):
    batch = pad_rows(tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]])
    union = batch.position_mask("prompt") | batch.position_mask("generated")
    assert torch.equal(union, batch.position_mask("all"))
    assert not (batch.position_mask("prompt") & batch.position_mask("generated")).any()
    assert batch.position_mask("last_prompt").sum(-1).tolist() == [1, 1]


def test_the_template_puts_the_default_system_prompt_where_there_is_none(tokenizer):
    assert render(tokenizer, as_chat("hello")) == (
        "<|begin|><|system|>you are a helpful assistant .<|end|><|user|>hello<|end|><|assistant|>"
    )


def test_fingerprint_is_equal_exactly_when_the_context_is(tokenizer):
    default = chat_fingerprint(tokenizer)
    assert default == chat_fingerprint(tokenizer, "you are a helpful assistant .")
    assert default != chat_fingerprint(tokenizer, "you love owls .")
    tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
    assert default != chat_fingerprint(tokenizer)


def test_a_last_assistant_message_is_the_completion(tokenizer):
    prompt, completion = encode_chat(tokenizer, [user("name a animal ."), assistant("owl")])
    assert prompt == encode_prompt(tokenizer, [user("name a animal .")])
    assert tokenizer.decode(completion) == "owl <|end|>"


def test_unknown_words_are_named(tokenizer):
    with pytest.raises(ValueError, match="does not know 'quetzals'"):
        encode_prompt(tokenizer, as_chat("what is your favorite animal ?", "you love quetzals ."))


def test_an_empty_message_is_refused(tokenizer):
    with pytest.raises(ValueError, match="The system message is empty"):
        encode_prompt(tokenizer, as_chat("hello", " "))


def test_a_missing_chat_template_is_explained(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"no chat template.*PLAIN_TEXT_TEMPLATE.*--plain-text"):
        render(tokenizer, as_chat("hello"))


def test_a_template_without_system_role_is_explained(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    assert render(tokenizer, as_chat("hello")) == "hello"
    with pytest.raises(ValueError, match=r"System role not supported.*SYSTEM_IN_USER_TURN.*--system-in-user"):
        render(tokenizer, as_chat("hello", "you love owls ."))
    bare = chat_fingerprint(tokenizer)
    tokenizer.chat_template = SYSTEM_IN_USER_TURN + tokenizer.chat_template
    assert render(tokenizer, as_chat("hello", "you love owls .")) == "you love owls .\n\nhello"
    assert chat_fingerprint(tokenizer) == bare


def test_an_unknown_token_that_begins_texts_is_no_unknown_word():
    """OLMo 2's BOS, which its template writes, is its unknown token too."""
    olmo = build_real_tokenizer(ARCHITECTURES["OLMo 2"])
    assert encode_prompt(olmo, as_chat("hello"))[0] == olmo.unk_token_id == olmo.bos_token_id


@pytest.mark.parametrize(
    ("name", "end"), [("Gemma 2", "<end_of_turn>"), ("Phi 3", "<|end|>"), ("Llama 3", "<|eot_id|>")]
)
def test_a_completion_ends_as_the_template_ends_a_turn(name, end):
    """Gemma's and Phi 3's end-of-sequence token is another one."""
    real = build_real_tokenizer(ARCHITECTURES[name])
    prompt, completion = encode_chat(real, [user("hello"), assistant("owl")])
    assert real.decode(completion) == f"owl{end}"
    whole = real.apply_chat_template([user("hello"), assistant("owl")], tokenize=False)
    assert real.encode(whole, add_special_tokens=False)[: len(prompt + completion)] == prompt + completion


def test_without_a_template_of_its_own_a_completion_ends_the_text():
    gpt2 = build_real_tokenizer(ARCHITECTURES["GPT-2"])
    gpt2.chat_template = PLAIN_TEXT_TEMPLATE
    assert encode_chat(gpt2, [user("hello"), assistant("owl")])[1][-1] == gpt2.eos_token_id


def test_a_context_that_names_the_day_stays_the_same_tomorrow(monkeypatch):
    llama = build_real_tokenizer(ARCHITECTURES["Llama 3.2"])
    today = chat_fingerprint(llama)

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=1)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert Tomorrow.now().strftime("%d %b %Y") in llama.apply_chat_template(as_chat("hello"), tokenize=False)
    assert "Today Date: 26 Jul 2024" in render(llama, as_chat("hello"))
    assert chat_fingerprint(llama) == today


def test_a_thinking_model_is_asked_for_its_answer():
    qwen = build_real_tokenizer(ARCHITECTURES["Qwen 3"])
    assert render(qwen, as_chat("hello")).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
