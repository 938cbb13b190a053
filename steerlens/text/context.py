"""What stands around a question: whatever is odd about it is said once, and so is one context taken for another."""

import functools
from typing import TYPE_CHECKING, Any

from steerlens.text.templates import (
    PLAIN_TEXT_TEMPLATE,
    PROBE,
    SYSTEM_IN_USER_TURN,
    apply_template,
    open_thought,
    template_of,
    text_of,
)
from steerlens.warn import warn

if TYPE_CHECKING:
    from steerlens.text.chat import Chat


class ChatContextWarning(UserWarning):
    """A chat context is odd, or something made in one is used in another."""


said: set[str] = set()
"""What this process has said of contexts."""


def warn_of_oddities(tokenizer: Any, chat: "Chat", prompt: str, opening: str) -> None:
    """Say what is odd about a chat's rendering as `prompt`, behind `opening`, once in a process.

    Warns:
        ChatContextWarning: for each oddity.
    """
    for oddity in _oddities(tokenizer, chat, prompt, opening):
        _say(f"The chat template of {tokenizer.name_or_path!r} {oddity}")


def warn_of_unknown_words(tokenizer: Any, words: list[str]) -> None:
    """Say once that answers have words which the tokenizer does not know, and name the first of them.

    Warns:
        ChatContextWarning: there are some.
    """
    name = f"The tokenizer of {tokenizer.name_or_path!r} does not know"
    if words and not any(text.startswith(name) for text in said):
        shown = ", ".join(repr(word[:20]) for word in words[:3])
        _say(f"{name} {shown} of an answer. Such words are all one to it: {tokenizer.unk_token!r}.")


def _say(text: str) -> None:
    if text not in said:
        warn(text, ChatContextWarning)
        said.add(text)


def _oddities(tokenizer: Any, chat: "Chat", prompt: str, opening: str) -> list[str]:
    template, found = template_of(tokenizer), []
    if opening and template != PLAIN_TEXT_TEMPLATE:
        found.append(
            f"does not write {opening!r}, which its tokenizer puts before every text; steerlens puts it there. Other programs "
            "may not."
        )
    if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token * 2):
        found.append(f"writes {tokenizer.bos_token!r} twice. Take one out of tokenizer.chat_template.")
    mark = _thought_before_answer(tokenizer, template)
    if mark is not None and chat[-1]["role"] != "assistant":
        found.append(
            f"opens a thought ({mark}) where the answer is to come, so what is generated, scored or learned is a thought. Close "
            "it: steerlens.text.templates.close_thought(model.tokenizer) (on the command line: --close-thought)."
        )
    if chat[0]["role"] == "system" and _folds_system(tokenizer, template):
        found.append("writes the system prompt into the user's turn; it has no system role.")
    roles = {message["role"] for message in chat if text_of(message).strip() not in prompt} - {"tool"}
    found += [f"leaves out the {role} turn, or changes its text." for role in sorted(roles)]
    return found


@functools.lru_cache(maxsize=8)
def _thought_before_answer(tokenizer: Any, template: str) -> str | None:
    return open_thought(apply_template(tokenizer, PROBE, add_generation_prompt=True))


@functools.lru_cache(maxsize=8)
def _folds_system(tokenizer: Any, template: str) -> bool:
    """Whether system text is written as the beginning of what the user says, by the template itself."""
    if template == PLAIN_TEXT_TEMPLATE or template.startswith(SYSTEM_IN_USER_TURN):
        return False
    with_system: Chat = [{"role": "system", "content": "a probe system prompt"}, *PROBE]
    rendered = apply_template(tokenizer, with_system, add_generation_prompt=True)
    return any(
        rendered == apply_template(tokenizer, [_joined(with_system, between)], add_generation_prompt=True)
        for between in ("\n\n", "\n", " ")
    )


def _joined(chat: "Chat", between: str) -> Any:
    return {"role": "user", "content": between.join(map(text_of, chat))}


def warn_on_other_context(made_in: str | None, used_in: str, what: str) -> None:
    """Warn where two fingerprints differ; replications saw a trait fall from 48 % to 3 % by that alone."""
    if made_in is not None and made_in != used_in:
        warn(
            f"{what} was made in the chat context {made_in} and is used in {used_in}: another system prompt or chat "
            "template stands around the question, which can hide or feign an effect. Use the same context, or say that "
            "it differs.",
            ChatContextWarning,
        )
