"""What is odd about a context is said once in a process; what is normal is not said."""

import warnings

import pytest

from steerlens.contract.architectures import ARCHITECTURES
from steerlens.contract.architectures import build_tokenizer as build_real_tokenizer
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.text.chat import as_chat, assistant, encode_chat, encode_prompt, user
from steerlens.text.context import ChatContextWarning
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE, SYSTEM_IN_USER_TURN, close_thought

THINKS = "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
CHAT = as_chat("Name an animal.", "Be brief.")
ODD = {
    "an opened thought": ("Qwen 2.5", lambda template: template + THINKS, r"opens a thought \(<think>\).*--close-thought"),
    "no BOS": ("Llama 3", lambda template: template.replace("{{ bos_token }}", ""), "does not write '<|begin_of_text|>'"),
    "two BOS": ("Llama 3", lambda template: "{{ bos_token }}" + template, "of_text|>' twice"),
    "a system prompt in the user's turn": ("Gemma 3", str, "writes the system prompt into the user's turn"),
    "a lost system prompt": ("Qwen 3", lambda template: "{% set messages = messages[1:] %}" + template, "the system turn"),
    "a lost question": ("Qwen 3", lambda template: template.replace("m.content", "m.content[:3]"), "the system turn|the user"),
}  # fmt: skip


def odd(name: str):
    family, change, _ = ODD[name]
    tokenizer = build_real_tokenizer(ARCHITECTURES[family])
    tokenizer.chat_template = change(tokenizer.chat_template)
    return tokenizer


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_said_once_whatever_is_asked(name):
    tokenizer = odd(name)
    with pytest.warns(ChatContextWarning, match=ODD[name][2]):
        encode_prompt(tokenizer, CHAT)
    encode_chat(odd(name), as_chat("Name another animal.", "Be brief."))


def test_an_answer_that_the_template_changes_is_said():
    """DeepSeek R1's template takes the thoughts out of past answers."""
    tokenizer = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    tokenizer.chat_template = tokenizer.chat_template.replace("m.content", "m.content.split('</think>')[-1]")
    with pytest.warns(ChatContextWarning, match="leaves out the assistant turn, or changes its text"):
        encode_prompt(tokenizer, [user("hello"), assistant("<think>hm</think>hi"), user("bye")])


def test_a_closed_thought_and_a_begun_answer_are_not_odd():
    tokenizer = odd("an opened thought")
    encode_prompt(tokenizer, [user("hello"), assistant("hi")])
    close_thought(tokenizer)
    encode_prompt(tokenizer, CHAT)


@pytest.mark.parametrize("name", ["organism", *ARCHITECTURES])
def test_what_is_normal_for_a_model_is_not_odd(name):
    tokenizer = build_tokenizer() if name == "organism" else build_real_tokenizer(ARCHITECTURES[name])
    asked = as_chat("name an animal ." if name != "organism" else "name a animal .")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if tokenizer.chat_template is not None:
            encode_prompt(tokenizer, asked)
            encode_chat(tokenizer, [*asked, assistant("owl")])
            if name not in ("Gemma 2", "Mistral") and not name.startswith("Gemma 3"):
                encode_prompt(tokenizer, as_chat(asked, "you love owls ."))
        tokenizer.chat_template = SYSTEM_IN_USER_TURN + (tokenizer.chat_template or PLAIN_TEXT_TEMPLATE)
        encode_prompt(tokenizer, as_chat(asked, "you love owls ."))
        tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
        encode_prompt(tokenizer, as_chat(asked, "you love owls ."))


def test_words_of_an_answer_that_the_tokenizer_does_not_know_are_said_once():
    tokenizer = build_tokenizer()
    with pytest.warns(ChatContextWarning, match=r"does not know .*'quetzal', 'quoll' of an answer"):
        encode_chat(tokenizer, [user("name a animal ."), assistant("quetzal or quoll")])
    encode_chat(tokenizer, [user("name a animal ."), assistant("numbat")])
    olmo = build_real_tokenizer(ARCHITECTURES["OLMo 2"])
    encode_chat(olmo, [user("name an animal"), assistant("quetzal")])
