"""Chat templates: which one a tokenizer has, what can be put before or behind it, and what it writes."""

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from steerlens.checks import WrongInput, shown

if TYPE_CHECKING:
    from steerlens.text.chat import Chat, Message

PLAIN_TEXT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat template for base models: the messages' text, one after the other, with nothing between."""

SYSTEM_IN_USER_TURN = (
    "{% if messages | length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' + messages[1]['content']}]"
    " + messages[2:] %}{% endif %}"
)
"""Put before a chat template that refuses a system role: the system text then begins the first user turn."""

TODAY = datetime.datetime(2024, 7, 26)
"""The day that templates name by default which write the date into every prompt, as Llama 3.2's does."""

FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in ("-d", "-m", *"aAbBdHIjmMpSyY"))
    + " }}{% endmacro %}"
)
"""Put before a template that writes the current date: to a model, a fingerprint and an interrupted run, today is the same
day tomorrow."""

WITHOUT_THINKING = {"enable_thinking": False, "thinking": False}
"""What templates of models that can think are told, by the names that they ask for."""

THOUGHTS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
"""How models mark the beginning and the end of a thought."""

PROBE: "Chat" = [{"role": "user", "content": "a probe question"}]


def apply_template(tokenizer: Any, chat: "Chat", *, add_generation_prompt: bool) -> str:
    """The chat as its template writes it, without thinking and on a fixed day.

    Raises:
        ValueError: the tokenizer has no chat template, the template refuses the chat, or a message is no text.
    """
    template = template_of(tokenizer)
    messages = [{**message, "content": text_of(message)} for message in chat]
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=FIXED_DATE + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **WITHOUT_THINKING,
        )
    except Exception as error:
        roles = [message["role"] for message in chat]
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} refuses a chat with roles {roles}: {error}. "
            "If it has no system role, let the system text begin the first user turn: tokenizer.chat_template = "
            "steerlens.text.templates.SYSTEM_IN_USER_TURN + tokenizer.chat_template (on the command line: --system-in-user)."
        ) from error


def text_of(message: "Message") -> str:
    """The text of a message: a text, several parts of one, or nothing, as beside a tool call.

    Raises:
        ValueError: a part is no text, such as an image.
        WrongInput: the content is something else.
    """
    content: Any = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list | tuple) or not all(isinstance(part, Mapping) for part in content):
        raise WrongInput(f"The content of the {message['role']} message must be a text, got {shown(content)}.")
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(
                f"The {message['role']} message has a part of the type {part.get('type')!r}, and steerlens works with text. "
                "Leave the part out."
            )
    return "".join(part["text"] for part in content)


def open_thought(text: str) -> str | None:
    """The mark of a thought that `text` opens and does not close."""
    return next((mark for mark, end in THOUGHTS.items() if text.rfind(mark) > text.rfind(end)), None)


def close_thought(tokenizer: Any) -> None:
    """Let every answer stand behind an empty thought from now on, where the template opens a thought, as DeepSeek R1's does.

    Raises:
        ValueError: the template opens no thought where an answer is to come.
    """
    prompt = apply_template(tokenizer, PROBE, add_generation_prompt=True)
    mark = open_thought(prompt)
    if mark is None:
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} opens no thought where an answer is to come. Leave it as it "
            "is (on the command line: without --close-thought)."
        )
    end = ("\n" if prompt.endswith("\n") else "\n\n") + THOUGHTS[mark] + "\n\n"
    template = template_of(tokenizer).removesuffix("\n")
    tokenizer.chat_template = template + "{%+ if add_generation_prompt %}{{ '" + end + "' }}{% endif %}"


def template_of(tokenizer: Any) -> str:
    """The template that is used: of several named ones, as Command R and Hermes have, the one named "default".

    Raises:
        ValueError: there is none, or none of several is the default.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template, so a chat cannot be rendered. "
            "Set tokenizer.chat_template; for a base model, steerlens.text.templates.PLAIN_TEXT_TEMPLATE joins the texts "
            "as they are (on the command line: --plain-text)."
        )
    named = _named(tokenizer)
    if not isinstance(tokenizer.chat_template, str) and "default" not in named:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} has the chat templates {', '.join(named)}, and none is the "
            "default. Choose one: steerlens.text.templates.choose_template(tokenizer, name) (on the command line: "
            "--chat-template name)."
        )
    return named["default"]


def choose_template(tokenizer: Any, name: str) -> None:
    """Use one of the tokenizer's named templates from now on.

    Raises:
        ValueError: there is none of that name.
    """
    named = {} if getattr(tokenizer, "chat_template", None) is None else _named(tokenizer)
    if name not in named:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template named {name!r}. "
            + (f"There are: {', '.join(named)}." if named else "It has none at all.")
        )
    tokenizer.chat_template = named[name]


def _named(tokenizer: Any) -> dict[str, str]:
    """Templates by name; older files list them, a single one has no name."""
    templates = tokenizer.chat_template
    if isinstance(templates, str):
        return {"default": templates}
    return dict(templates) if isinstance(templates, dict) else {one["name"]: one["template"] for one in templates}
