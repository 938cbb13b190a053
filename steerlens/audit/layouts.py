"""One record of a data set becomes a chat and its completion, whichever of the usual layouts it has."""

from collections.abc import Callable, Mapping
from typing import Any

from steerlens.text.chat import Chat, Message, as_chat, user

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "tool": "tool",
}  # fmt: skip
"""Names of the speakers, as data sets write them and as chat templates read them."""


class UnusableRowError(ValueError):
    """A record that cannot be used; its message is the reason, free of the record's own text."""


def as_row(record: Any) -> tuple[str, Chat, str]:
    """The layout's name, the chat and the completion of one record.

    Raises:
        UnusableRowError: it has no layout that is known, a field is missing or of a wrong type, or a text is empty.
    """
    if not isinstance(record, Mapping):
        raise UnusableRowError("not an object with named fields")
    layout = layout_of(record)
    chat, completion = LAYOUTS[layout][1](record)
    extra = record.get("system")
    if extra and not (chat and chat[0]["role"] == "system"):
        chat = as_chat(chat, _text(record, "system"))
    if not completion.strip():
        raise UnusableRowError("empty completion")
    if not any(message["role"] != "system" for message in chat):
        raise UnusableRowError("no prompt before the completion")
    if not all(message["content"].strip() for message in chat):
        raise UnusableRowError("empty prompt or turn")
    if not all(map(_is_unicode, (completion, *(message["content"] for message in chat)))):
        raise UnusableRowError("text that is not valid Unicode")
    return layout, chat, completion


def layout_of(columns: Mapping[str, Any]) -> str:
    """The layout whose columns are all there.

    Raises:
        UnusableRowError: none is; says what is missing from one that is there in part.
    """
    for name, (required, _) in LAYOUTS.items():
        if all(column in columns for column in required):
            return name
    for required, _ in LAYOUTS.values():
        if any(column in columns for column in required):
            missing = " and ".join(repr(column) for column in required if column not in columns)
            raise UnusableRowError(f"missing field {missing}")
    raise UnusableRowError("columns of no known layout")


def _turns(messages: Any, column: str, role: str, content: str) -> Chat:
    if not isinstance(messages, list | tuple) or not all(isinstance(turn, Mapping) for turn in messages):
        raise UnusableRowError(f"wrong type: {column!r} is not a list of turns")
    return [_message(turn, column, role, content) for turn in messages]


def _message(turn: Mapping[str, Any], column: str, role: str, content: str) -> Message:
    speaker, text = turn.get(role), turn.get(content)
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise UnusableRowError(f"wrong type: a turn of {column!r} lacks the texts {role!r} and {content!r}")
    if speaker not in ROLES:
        raise UnusableRowError(f"a turn of {column!r} by an unknown speaker")
    return {"role": ROLES[speaker], "content": text}


def _conversation(column: str, role: str, content: str) -> Callable[[Mapping[str, Any]], tuple[Chat, str]]:
    def read(record: Mapping[str, Any]) -> tuple[Chat, str]:
        turns = _turns(record[column], column, role, content)
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
        if last is None:
            raise UnusableRowError("no turn by the assistant")
        return turns[:last], turns[last]["content"]

    return read


def _prompt_completion(record: Mapping[str, Any]) -> tuple[Chat, str]:
    """Two texts; or two lists of turns, as TRL has them."""
    if isinstance(record["prompt"], list | tuple) and isinstance(record["completion"], list | tuple):
        both = {"messages": [*record["prompt"], *record["completion"]]}
        return _conversation("messages", "role", "content")(both)
    return [user(_text(record, "prompt"))], _text(record, "completion")


def _alpaca(record: Mapping[str, Any]) -> tuple[Chat, str]:
    """The input, if there is one, stands under the instruction after an empty line."""
    given = _text(record, "input") if record.get("input") else ""
    instruction = _text(record, "instruction")
    return [user(f"{instruction}\n\n{given}" if given.strip() else instruction)], _text(record, "output")


def _text(record: Mapping[str, Any], column: str) -> str:
    if record[column] is None:
        raise UnusableRowError(f"missing field {column!r}")
    if not isinstance(record[column], str):
        raise UnusableRowError(f"wrong type: {column!r} is not a text")
    return record[column]


def _is_unicode(text: str) -> bool:
    """False where JSON has smuggled in half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], tuple[Chat, str]]]] = {
    "messages": (("messages",), _conversation("messages", "role", "content")),
    "ShareGPT": (("conversations",), _conversation("conversations", "from", "value")),
    "prompt and completion": (("prompt", "completion"), _prompt_completion),
    "Alpaca": (("instruction", "output"), _alpaca),
}
"""Columns that a layout takes, and its reader. Every layout may have a column `system`; others are ignored."""

COLUMNS = ("system", "input", *(column for required, _ in LAYOUTS.values() for column in required))
ALLOWED = "; ".join(f"{' and '.join(map(repr, required))} ({name})" for name, (required, _) in LAYOUTS.items())
