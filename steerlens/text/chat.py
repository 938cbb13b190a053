"""Chats, and the tokens that they become; no other module tokenizes a rendered chat.

Rendered chats are tokenized with `add_special_tokens=False`, because the chat template already writes
the model's special tokens; adding them again would give two BOS on Llama, Gemma and OLMo.
"""

import functools
import hashlib
from typing import Any, TypedDict

from steerlens.text.templates import apply_template, render, template_of


class Message(TypedDict):
    """One turn of a chat, in the layout that Hugging Face chat templates read."""

    role: str
    content: str


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
    """The chat that asks `question`, under `system_prompt` if there is one.

    Without a system prompt no system message is passed, so the context is whatever the model's own
    template makes of that (Qwen 2.5, for one, inserts a default).
    """
    chat = [user(question)] if isinstance(question, str) else list(question)
    return chat if system_prompt is None else [system(system_prompt), *chat]


def encode_prompt(tokenizer: Any, chat: Chat) -> list[int]:
    """Token ids of the rendered prompt.

    Raises:
        ValueError: as `render`; or the prompt has words that the tokenizer does not know.
    """
    text = render(tokenizer, chat)
    ids = tokenizer.encode(text, add_special_tokens=False)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        words = {word for message in chat for word in message["content"].split()}
        unknown = sorted(
            word for word in words if tokenizer.unk_token_id in tokenizer.encode(word, add_special_tokens=False)
        )
        if unknown:  # none where the unknown token also is the BOS that the template writes, as in OLMo 2
            raise ValueError(
                f"The tokenizer of {tokenizer.name_or_path!r} does not know {', '.join(map(repr, unknown))}. "
                "Reword the prompt; a small model's vocabulary is listed by tokenizer.get_vocab()."
            )
    return ids


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an assistant's answer, closed by the token that ends a turn."""
    ids, end = tokenizer.encode(text, add_special_tokens=False), end_of_turn(tokenizer)
    return ids if end is None else [*ids, end]


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


def encode_chat(tokenizer: Any, chat: Chat) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the completion: a last message by the assistant is the completion.

    Raises:
        ValueError: as `encode_prompt`.
    """
    if chat and chat[-1]["role"] == "assistant":
        return encode_prompt(tokenizer, chat[:-1]), encode_completion(tokenizer, chat[-1]["content"])
    return encode_prompt(tokenizer, chat), []


def chat_fingerprint(tokenizer: Any, system_prompt: str | None = None) -> str:
    """12 hex digits that change when the context around a question changes.

    Hashes the rendering of a fixed probe question, so two contexts are equal exactly when the template
    puts the same text around a question: template, default system prompt and `system_prompt` all count.
    """
    rendered = render(tokenizer, as_chat("a probe question", system_prompt))
    return hashlib.sha256(rendered.encode()).hexdigest()[:12]
