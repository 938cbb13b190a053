"""A chat becomes the text that a model reads; what a template would lose on the way is refused by name."""

from typing import TYPE_CHECKING, Any

from steerlens.text.templates import apply_template, open_thought, text_of

if TYPE_CHECKING:
    from steerlens.text.chat import Chat, Message

BEGUN = "the answer begins here"
"""Stands for an assistant's text while a template is asked what it writes before it."""


def render(tokenizer: Any, chat: "Chat") -> str:
    """The prompt text of `chat`, ready for the assistant to answer without thinking (Qwen 3), on a fixed day.

    A chat that ends with a turn of the assistant ends with its text: the assistant goes on with it.

    Raises:
        ValueError: the tokenizer has no chat template, the template refuses the chat or leaves out one of its tool calls, or
            a message is empty or no text.
    """
    _check_texts(chat)
    text = _written(tokenizer, chat)
    _check_nothing_is_lost(tokenizer, chat, text)
    return text


def _written(tokenizer: Any, chat: "Chat") -> str:
    if chat[-1]["role"] == "assistant":
        return _before_answer(tokenizer, chat) + text_of(chat[-1])
    return apply_template(tokenizer, chat, add_generation_prompt=True)


def _before_answer(tokenizer: Any, chat: "Chat") -> str:
    """What stands before the text of the assistant's last turn.

    It is what the template writes before that turn's text, or before any answer where that goes on further, as SmolLM 3's
    does, which closes an empty thought there; it is never a thought that is left open.
    """
    *asked, last = chat
    if last.get("tool_calls"):
        raise ValueError(
            "The chat ends with a tool call of the assistant, which cannot be continued. Add the tool's answer as a turn."
        )
    begun: Message = {**last, "content": BEGUN}
    turn, found, _ = apply_template(tokenizer, [*asked, begun], add_generation_prompt=False).partition(BEGUN)
    if not asked:
        return turn
    answer = apply_template(tokenizer, asked, add_generation_prompt=True)
    goes_further = answer.startswith(turn) and open_thought(answer[len(turn) :]) is None
    return answer if goes_further or not found else turn


def _check_texts(chat: "Chat") -> None:
    if not chat:
        raise ValueError("The chat has no turns. Give it at least one, such as a question.")
    for message in chat:
        if not text_of(message).strip() and message["role"] in ("system", "user"):
            raise ValueError(f"The {message['role']} message is empty. Give it some text, or leave the message out.")


def _check_nothing_is_lost(tokenizer: Any, chat: "Chat", text: str) -> None:
    """Refuse tool calls and empty turns that the template passes over, as if they were not there."""
    for index, message in enumerate(chat):
        before, after = chat[:index], chat[index + 1 :]
        if message.get("tool_calls"):
            bare: Message = {"role": message["role"], "content": text_of(message)}
            lost, what = text == _or_refused(tokenizer, [*before, bare, *after]), "tool calls"
        else:
            lost = after and not text_of(message).strip() and text == _or_refused(tokenizer, [*before, *after])
            what = f"an empty {message['role']} message"
        if lost:
            raise ValueError(
                f"The chat template of {tokenizer.name_or_path!r} does not write {what}. Leave the turn out, say it in words, "
                "or choose a template that writes it: steerlens.text.templates.choose_template (on the command line: "
                "--chat-template)."
            )


def _or_refused(tokenizer: Any, chat: "Chat") -> str | None:
    try:
        return _written(tokenizer, chat)
    except ValueError:
        return None
