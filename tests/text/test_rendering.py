"""A chat is rendered as its template would write it, and a begun answer is continued."""

import datetime

import pytest

from steerlens.contract.architectures import ARCHITECTURES
from steerlens.contract.architectures import build_tokenizer as build_real_tokenizer
from steerlens.text.chat import as_chat, assistant, encode_prompt, end_of_turn, user
from steerlens.text.rendering import render
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE


def test_the_template_puts_the_default_system_prompt_where_there_is_none(tokenizer):
    assert render(tokenizer, as_chat("hello")) == (
        "<|begin|><|system|>you are a helpful assistant .<|end|><|user|>hello<|end|><|assistant|>"
    )


def test_a_thinking_model_is_asked_for_its_answer():
    qwen = build_real_tokenizer(ARCHITECTURES["Qwen 3"])
    assert render(qwen, as_chat("hello")).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_an_empty_message_is_refused(tokenizer):
    with pytest.raises(ValueError, match="The system message is empty"):
        encode_prompt(tokenizer, as_chat("hello", " "))


BEGUN = "My favorite animal is the"
WITH_TEMPLATE = [name for name, architecture in ARCHITECTURES.items() if architecture.template is not None]


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_a_begun_answer_is_continued_as_transformers_continues_it(name):
    real = build_real_tokenizer(ARCHITECTURES[name])
    chat = [user("What is your favorite animal?"), assistant(BEGUN)]
    theirs = real.apply_chat_template(
        chat,
        continue_final_message=True,
        tokenize=False,
        enable_thinking=False,
    )
    assert render(real, chat) == theirs.replace(f"{datetime.datetime.now():%d %b %Y}", "26 Jul 2024")
    ids = encode_prompt(real, chat)
    assert real.decode(ids).endswith(BEGUN)
    assert ids.count(end_of_turn(real)) <= encode_prompt(real, chat[:-1]).count(end_of_turn(real))


@pytest.mark.parametrize("begun", ["the list: ", " owl", "\nend", "user"])
@pytest.mark.parametrize("name", ["Llama 3", "Gemma 3", "Qwen 3"])
def test_a_begun_answer_is_written_to_the_letter_whatever_the_template_trims(name, begun):
    real = build_real_tokenizer(ARCHITECTURES[name])
    assert render(real, [user("hello"), assistant(begun)]) == render(real, [user("hello")]) + begun


def test_a_begun_answer_stands_behind_the_empty_thought_that_a_template_writes_before_answers_alone():
    """SmolLM 3 writes it where an answer is asked for, not in turns of the past."""
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template += "{% if add_generation_prompt %}<think>\n\n</think>\n{% endif %}"
    assert render(real, [user("hello"), assistant(BEGUN)]).endswith("assistant\n<think>\n\n</think>\n" + BEGUN)


def test_a_begun_answer_does_not_stand_in_the_thought_that_a_template_opens():
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    assert render(real, [user("hello"), assistant(BEGUN)]).endswith("<|im_start|>assistant\n" + BEGUN)


def test_a_base_model_goes_on_with_a_text(tokenizer):
    tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
    assert render(tokenizer, [assistant("once upon")]) == "once upon"


CALLS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "{% if m.content %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that writes tool calls, as Qwen's and Hermes' do."""

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
CONTENTS = [{"content": None}, {}, {"content": ""}]


@pytest.mark.parametrize("content", CONTENTS, ids=["null", "missing", "empty"])
def test_a_tool_call_without_text_is_written_as_its_template_writes_it(content):
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template = CALLS
    calling = {"role": "assistant", "tool_calls": [CALL], **content}
    text = render(real, [user("weather?"), calling, {"role": "tool", "content": "rain"}])
    assert text == (
        '<|im_start|>user\nweather?<|im_end|>\n<|im_start|>assistant\n<tool_call>{"name": "weather", "arguments": '
        '{"city": "Ulm"}}</tool_call><|im_end|>\n<|im_start|>tool\nrain<|im_end|>\n<|im_start|>assistant\n'
    )


@pytest.mark.parametrize("content", CONTENTS, ids=["null", "missing", "empty"])
def test_a_tool_call_that_the_template_does_not_write_is_refused_by_name(content):
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    calling = {"role": "assistant", "tool_calls": [CALL], **content}
    with pytest.raises(ValueError, match=r"does not write tool calls\..*--chat-template"):
        render(real, [user("weather?"), calling, {"role": "tool", "content": "rain"}])
    with pytest.raises(ValueError, match="ends with a tool call"):
        render(real, [user("weather?"), calling])


@pytest.mark.parametrize("content", CONTENTS, ids=["null", "missing", "empty"])
def test_an_empty_turn_stands_where_the_template_writes_it_and_is_refused_where_it_vanishes(content):
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    chat = [user("hello"), {"role": "assistant", **content}, user("are you there?")]
    assert "<|im_start|>assistant\n<|im_end|>\n" in render(real, chat)
    real.chat_template = PLAIN_TEXT_TEMPLATE
    with pytest.raises(ValueError, match="The chat template of '' does not write an empty assistant message"):
        render(real, chat)
