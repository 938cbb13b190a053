"""Turns of a conversation, as data sets write them, become the messages of a chat; what is not understood is named."""

import json
from collections.abc import Mapping
from typing import Any

from steerlens.text.chat import Message

TOOL_CALL = "tool call"
ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
    "function_call": TOOL_CALL, "tool_call": TOOL_CALL,
}  # fmt: skip
"""Names of the speakers, as data sets write them and as chat templates read them."""


class UnusableRowError(ValueError):
    """Something in a record that cannot be used; its message is the reason, nearly free of the record's own text."""


def as_turns(value: Any, column: str, speaker: str | None = None) -> list[Any]:
    """A list of turns, or one turn of the text that `speaker` says; without one, a text is the list in JSON.

    Raises:
        UnusableRowError: it is neither.
    """
    if isinstance(value, str) and speaker is not None:
        return [{"role": speaker, "content": value}]
    turns = _from_json(value)
    if isinstance(turns, list | tuple) and all(isinstance(turn, Mapping) for turn in turns):
        return list(turns)
    raise UnusableRowError(f"wrong type: {column!r} is not a {'list of turns' if speaker is None else 'text'}")


def as_message(turn: Mapping[str, Any], column: str) -> Message:
    """One turn: who speaks (`role` or `from`), and what (`content` or `value`, a text or its parts, or a tool call).

    Raises:
        UnusableRowError: the speaker is not known, or what they say is no text.
    """
    speaker = turn.get("role", turn.get("from"))
    if not isinstance(speaker, str):
        raise UnusableRowError(f"wrong type: a turn of {column!r} lacks the speaker, 'role' or 'from'")
    role = ROLES.get(speaker.strip().lower())
    if role is None:
        raise UnusableRowError(f"a turn of {column!r} by the unknown speaker {speaker[:20]!r}")
    text = _text(turn.get("content", turn.get("value")), column)
    if role == TOOL_CALL:
        return {"role": "assistant", "content": "", "tool_calls": _calls(_from_json(text))}
    message: Message = {"role": role, "content": text}
    if turn.get("tool_calls"):
        message["tool_calls"] = _calls(_from_json(turn["tool_calls"]))
    for key in ("tool_call_id", "name"):
        if isinstance(turn.get(key), str):
            message[key] = turn[key]
    return message


def is_valid(text: str) -> bool:
    """False where JSON has smuggled in half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(content: Any, column: str) -> str:
    parts = content if isinstance(content, list | tuple) else [] if content is None else [content]
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        said = part.get("text") if kind == "text" else part
        if not isinstance(said, str):
            what = f"a part of the type {str(kind)[:20]!r}" if kind else "something that is no text"
            raise UnusableRowError(f"wrong type: a turn of {column!r} has {what}")
        texts.append(said)
    if not all(map(is_valid, texts)):
        raise UnusableRowError("half a surrogate pair, no valid Unicode")
    return "".join(texts)


def _calls(calls: Any) -> list[dict[str, Any]]:
    """Tool calls as chat templates read them: a function's name, and its arguments as an object."""
    calls = calls if isinstance(calls, list | tuple) else [calls]
    return [{"type": "function", "function": _function(call)} for call in calls]


def _function(call: Any) -> dict[str, Any]:
    function = call.get("function") or call if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnusableRowError("a tool call without the name of its function")
    return {"name": function["name"], "arguments": _from_json(function.get("arguments") or {})}


def _from_json(value: Any) -> Any:
    """What a text says as JSON, as several data sets write calls and turns; everything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
