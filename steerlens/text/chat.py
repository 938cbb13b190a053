"""Chats, and the tokens that they become; no other module tokenizes a rendered chat.

Rendered chats are tokenized with `add_special_tokens=False`, because the chat template already writes
the model's special tokens; adding them again would give two BOS on Llama, Gemma and OLMo.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

from steerlens.checks import WrongInput, shown
from steerlens.text.context import warn_of_oddities, warn_of_unknown_words
from steerlens.text.rendering import render
from steerlens.text.templates import apply_template, template_of, text_of


class Message(TypedDict):
    """One turn of a chat, in the layout that Hugging Face chat templates read.

    `content` is a text or a list of its parts, `{"type": "text", "text": ...}`; it may be missing beside `tool_calls`.
    """

    role: str
    content: NotRequired[str | list[dict[str, Any]] | None]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


Chat = list[Message]


def system(text: str) -> Message:
    """A system turn."""
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    """A user turn."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": text}


def as_chat(question: str | Chat, system_prompt: str | None = None) -> Chat:
    """The chat that asks `question`, one text or the turns of a chat, under `system_prompt` if there is one.

    Without a system prompt no system message is passed, so the context is whatever the model's own
    template makes of that (Qwen 2.5, for one, inserts a default).

    Raises:
        WrongInput: `question` is neither a text nor a list of turns.
        ValueError: the chat has a system turn of its own, and `system_prompt` is given.
    """
    chat = [user(question)] if isinstance(question, str) else _turns(question)
    if system_prompt is None:
        return chat
    if not isinstance(system_prompt, str):
        raise WrongInput(f"system_prompt must be a text, got {shown(system_prompt)}.")
    if chat and chat[0]["role"] == "system":
        raise ValueError(
            f"The chat begins with a system turn of its own ({shown(chat[0].get('content'))}), and a system prompt is "
            f"given ({shown(system_prompt)}). Leave one out."
        )
    return [system(system_prompt), *chat]


def _turns(chat: Any) -> Chat:
    turns = [] if isinstance(chat, Mapping) or not isinstance(chat, Iterable) else list(chat)
    if not all(isinstance(turn, Mapping) and isinstance(turn.get("role"), str) for turn in turns) or not (
        turns or chat == []
    ):
        raise WrongInput(
            f"A question is a text or a chat, got {shown(chat)}. Write a text, or a list of turns such as "
            '[{"role": "user", "content": "Name an animal."}].'
        )
    return turns


def encode_prompt(tokenizer: Any, chat: str | Chat) -> list[int]:
    """Token ids of the rendered prompt, which begin as the tokenizer begins every text: with BOS, where it adds one.

    Warns:
        ChatContextWarning: something about the context is odd; said once.

    Raises:
        ValueError: as `render`; or the prompt has words that the tokenizer does not know.
    """
    chat = as_chat(chat)
    text = render(tokenizer, chat)
    ids = tokenizer.encode(text, add_special_tokens=False)
    unknown = unknown_words(tokenizer, ids, [text_of(message) for message in chat])
    if unknown:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} does not know {', '.join(map(repr, unknown))}. "
            "Reword the prompt; a small model's vocabulary is listed by tokenizer.get_vocab()."
        )
    opening = _missing_opening(tokenizer, ids)
    warn_of_oddities(tokenizer, chat, text, "".join(tokenizer.convert_ids_to_tokens(opening)))
    return opening + ids


def _missing_opening(tokenizer: Any, ids: list[int]) -> list[int]:
    """What the tokenizer puts before any text by itself, usually BOS, where the template has not written it already.

    Base models need it: Gemma 3 has a perplexity of 340 without it, and of 13 with it.
    """
    whole, bare = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    opening = whole[: next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)]
    return [] if opening[:1] == ids[:1] else opening


def unknown_words(tokenizer: Any, ids: list[int], texts: list[str]) -> list[str]:
    """The words of `texts` that became the unknown token, which also is the BOS of some models (OLMo 2)."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in ids:
        return []
    words = {word for text in texts for word in text.split()}
    words = {word for word in words if tokenizer.unk_token not in word}
    return sorted(word for word in words if unknown in tokenizer.encode(word, add_special_tokens=False))


def encode_completion(tokenizer: Any, text: str, *, finished: bool = True) -> list[int]:
    """Token ids of an assistant's answer, closed by the token that ends a turn unless it was cut off.

    Warns:
        ChatContextWarning: the tokenizer does not know some words of it; said once.
    """
    ids, end = tokenizer.encode(text, add_special_tokens=False), end_of_turn(tokenizer)
    warn_of_unknown_words(tokenizer, unknown_words(tokenizer, ids, [text]))
    return [*ids, end] if finished and end is not None else ids


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that closes an assistant's answer: the chat template's own, or else the end-of-sequence token.

    They differ where a model ends its turns with another token than its texts, as Gemma and Phi 3 do.
    """
    return _end_of_turn(tokenizer, None if tokenizer.chat_template is None else template_of(tokenizer))


@functools.lru_cache(maxsize=8)
def _end_of_turn(tokenizer: Any, template: str | None) -> int | None:
    if template is None:
        return tokenizer.eos_token_id
    answer = "a probe answer"
    rendered = apply_template(tokenizer, [user("a probe question"), assistant(answer)], add_generation_prompt=False)
    _, written, behind = rendered.rpartition(answer)
    closing = tokenizer.encode(behind, add_special_tokens=False) if written else []
    control = tokenizer.added_tokens_decoder
    return next((token for token in closing if token in control), tokenizer.eos_token_id)


def encode_chat(tokenizer: Any, chat: str | Chat) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the completion: a last message by the assistant is the completion.

    Raises:
        ValueError: as `encode_prompt`; or the completion is a tool call.
    """
    chat = as_chat(chat)
    if chat and chat[-1].get("tool_calls"):
        raise ValueError(
            "The chat ends with a tool call, and a completion is a text. End it with the turn before or after."
        )
    if chat and chat[-1]["role"] == "assistant":
        return encode_prompt(tokenizer, chat[:-1]), encode_completion(tokenizer, text_of(chat[-1]))
    return encode_prompt(tokenizer, chat), []


def chat_fingerprint(tokenizer: Any, system_prompt: str | None = None) -> str:
    """12 hex digits that change when the context around a question changes.

    Hashes the rendering of a fixed probe question, so two contexts are equal exactly when the same text stands
    around a question: template, default system prompt, BOS and `system_prompt` all count.
    """
    rendered = render(tokenizer, as_chat("a probe question", system_prompt))
    opening = _missing_opening(tokenizer, tokenizer.encode(rendered, add_special_tokens=False))
    text = "".join(tokenizer.convert_ids_to_tokens(opening)) + rendered
    return hashlib.sha256(text.encode()).hexdigest()[:12]
