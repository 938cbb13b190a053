"""Chats become the tokens that their model was trained on, and a context's fingerprint follows what the model sees."""

import pytest

from steerlens.contract.architectures import ARCHITECTURES
from steerlens.contract.architectures import build_tokenizer as build_real_tokenizer
from steerlens.text.chat import (
    as_chat,
    assistant,
    chat_fingerprint,
    encode_chat,
    encode_completion,
    encode_prompt,
    end_of_turn,
    user,
)
from steerlens.text.context import ChatContextWarning
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE


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


WITH_TEMPLATE = [name for name, architecture in ARCHITECTURES.items() if architecture.template is not None]
ADDS_BOS = [name for name, architecture in ARCHITECTURES.items() if architecture.adds_bos]


def without_bos(name: str):
    """A tokenizer whose template does not write the BOS that it adds to texts by itself, as TinyLlama's and Zephyr's."""
    real = build_real_tokenizer(ARCHITECTURES[name])
    real.chat_template = real.chat_template.replace("{{ bos_token }}", "")
    return real


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_plain_text_begins_as_the_tokenizer_begins_every_text(name):
    """Gemma 3's base model has a perplexity of 340 without its BOS and of 13 with it."""
    real = build_real_tokenizer(ARCHITECTURES[name])
    real.chat_template = PLAIN_TEXT_TEMPLATE
    assert encode_prompt(real, [user("Name an animal.")]) == real.encode("Name an animal.")
    if real.bos_token is not None:
        written = real.bos_token + "Name an animal."
        assert encode_prompt(real, [user(written)]) == real.encode(written, add_special_tokens=False)


@pytest.mark.parametrize("name", [name for name in WITH_TEMPLATE if name != "Llama 3.2"])
def test_a_chat_is_the_tokens_of_its_own_template(name):
    real = build_real_tokenizer(ARCHITECTURES[name])
    chat = [user("Name an animal."), assistant("Owl."), user("Another.")]
    theirs = real.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False, return_dict=False)
    assert encode_prompt(real, chat) == theirs


@pytest.mark.parametrize("name", ADDS_BOS)
def test_a_template_that_leaves_bos_out_means_the_context_of_one_that_writes_it(name):
    writes, leaves_out = build_real_tokenizer(ARCHITECTURES[name]), without_bos(name)
    with pytest.warns(ChatContextWarning, match=f"does not write '{writes.bos_token}'"):
        assert encode_prompt(leaves_out, "hello") == encode_prompt(writes, "hello")
    assert chat_fingerprint(leaves_out) == chat_fingerprint(writes)


def test_a_tokenizer_that_is_told_to_add_bos_has_it_added():
    phi = build_real_tokenizer(ARCHITECTURES["Phi 3"])
    phi.chat_template = PLAIN_TEXT_TEMPLATE
    assert encode_prompt(phi, "hello")[0] != phi.bos_token_id
    phi.add_bos_token = True
    assert encode_prompt(phi, "hello")[:2].count(phi.bos_token_id) == 1


def test_a_text_that_was_cut_off_has_no_end(tokenizer):
    whole = encode_completion(tokenizer, "1 , 2")
    assert encode_completion(tokenizer, "1 , 2", finished=False) == whole[:-1]
    assert whole[-1] == end_of_turn(tokenizer)


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_parts_of_text_are_one_text_to_every_template(name):
    real = build_real_tokenizer(ARCHITECTURES[name])
    parts = [{"type": "text", "text": "Name an "}, {"type": "text", "text": "animal."}]
    chat = [user("Name an animal."), assistant("Owl.")]
    assert encode_chat(real, [{"role": "user", "content": parts}, chat[1]]) == encode_chat(real, chat)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "user", "content": [{"type": "image", "url": "a.png"}]}, "part of the type 'image'.*Leave the part out"),
        ({"role": "user", "content": [{"type": "text"}]}, "a part of the type 'text'"),
        ({"role": "user", "content": ["hello"]}, "content of the user message must be a text, got"),
        ({"role": "user", "content": 7}, r"content of the user message must be a text, got 7 \(int\)"),
        ({"role": "user", "content": None}, "The user message is empty"),
        ({"role": "user"}, "The user message is empty"),
        ({"content": "hello"}, "A question is a text or a chat, got"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_call")
def test_a_message_that_is_no_text_is_refused_by_name(tokenizer, message, told):
    with pytest.raises(ValueError, match=told):
        encode_prompt(tokenizer, [message])


@pytest.mark.parametrize("wrong", [None, 7, user("hello"), ["hello"], [("user", "hello")]])
@pytest.mark.usefixtures("as_users_call")
def test_what_is_neither_text_nor_chat_is_refused_with_the_way_to_write_it(tokenizer, wrong):
    for function in (lambda chat: as_chat(chat), lambda chat: encode_chat(tokenizer, chat)):
        with pytest.raises(TypeError, match=r"A question is a text or a chat, got .* Write a text, or a list of turns"):
            function(wrong)


def test_an_empty_chat_is_refused(tokenizer):
    with pytest.raises(ValueError, match="The chat has no turns"):
        encode_prompt(tokenizer, [])


def test_a_chat_of_several_turns_is_asked_under_a_system_prompt_unless_it_has_one():
    chat = [user("hello"), assistant("hi"), user("how are you ?")]
    assert as_chat(chat, "be brief .") == [{"role": "system", "content": "be brief ."}, *chat]
    with pytest.raises(ValueError, match=r"a system turn of its own .*'be brief .'.* and a system prompt is given"):
        as_chat(as_chat(chat, "be brief ."), "be long .")
