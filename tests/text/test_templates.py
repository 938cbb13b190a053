"""One template of several, a fixed day, closed thoughts: what a tokenizer's chat template is made to write."""

import datetime

import pytest

from steerlens.contract.architectures import ARCHITECTURES
from steerlens.contract.architectures import build_tokenizer as build_real_tokenizer
from steerlens.text.chat import as_chat, assistant, chat_fingerprint, encode_chat, user
from steerlens.text.rendering import render
from steerlens.text.templates import SYSTEM_IN_USER_TURN, choose_template, close_thought


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


def test_every_part_of_a_date_is_fixed():
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template = "{{ strftime_now('%A, %-d %B %Y (%Y-%m-%d, %j) %H:%M:%S %y') }}{{ messages[0]['content'] }}"
    assert render(real, [user(" hello")]) == "Friday, 26 July 2024 (2024-07-26, 208) 00:00:00 24 hello"


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


@pytest.mark.parametrize("named", [dict, lambda pairs: [{"name": n, "template": t} for n, t in pairs]])
def test_of_several_named_templates_the_default_is_used_and_another_can_be_chosen(named):
    """Command R and Hermes have several; older files list them."""
    real, judge = (build_real_tokenizer(ARCHITECTURES["Gemma 2"]) for _ in range(2))
    both = [("default", real.chat_template), ("tool_use", ARCHITECTURES["Qwen 2.5"].template)]
    real.chat_template = named(both)
    chat = [user("hello"), assistant("owl")]
    assert encode_chat(real, chat) == encode_chat(judge, chat)
    assert chat_fingerprint(real) == chat_fingerprint(judge)
    choose_template(real, "tool_use")
    judge.chat_template = ARCHITECTURES["Qwen 2.5"].template
    assert render(real, chat[:1]) == render(judge, chat[:1])


def test_named_templates_without_a_default_are_listed():
    real = build_real_tokenizer(ARCHITECTURES["Gemma 2"])
    real.chat_template = {"rag": real.chat_template, "tool_use": real.chat_template}
    with pytest.raises(ValueError, match=r"rag, tool_use, and none is the default.*choose_template.*--chat-template"):
        encode_chat(real, [user("hello"), assistant("owl")])
    with pytest.raises(ValueError, match=r"no chat template named 'rug'. There are: rag, tool_use"):
        choose_template(real, "rug")


@pytest.mark.parametrize("opened", ["<think>", "<think>\n", "<reasoning>\n"])
def test_an_opened_thought_can_be_closed_so_that_the_answer_stands_behind_it(opened):
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template += "{% if add_generation_prompt %}{{ '" + opened + "' }}{% endif %}\n"
    closed = render(real, [user("hello")])
    close_thought(real)
    name = opened.strip()
    assert render(real, [user("hello")]) == closed.removesuffix(opened) + f"{name}\n\n</{name[1:]}\n\n"
    assert render(real, [user("hello"), assistant("owls")]) == render(real, [user("hello")]) + "owls"
    with pytest.raises(ValueError, match="opens no thought"):
        close_thought(real)
