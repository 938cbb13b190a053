"""One record of a data set becomes rows to learn from, whichever of the usual layouts it has: every answer is a row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steerlens.samples.turns import UnusableRowError, as_message, as_turns, is_valid
from steerlens.text.chat import Chat, Message
from steerlens.text.templates import text_of

Record = Mapping[str, Any]

UNREAD = ("tools", "documents", "context")
"""What may stand beside a conversation, as part of its prompt, and is not read; the layout's name says so where it does."""

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""What a turn may say of the thought before its answer, which is not read either: answers are written without thinking."""


class Answer(NamedTuple):
    """What the assistant says, and the prompt before it: the user's text, or a chat where there is more.

    `finished` is False where it was cut off, `turn` numbers the answers of a record that has several, from 1, and `tokens`
    are its token ids, where they were kept.
    """

    prompt: str | Chat
    completion: str
    finished: bool = True
    turn: int | None = None
    tokens: tuple[int, ...] | None = None


@dataclass
class Reading:
    """What became of a record: its layout, the answers that are used, and why others are not."""

    layout: str
    answers: list[Answer] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


class Part(NamedTuple):
    """Turns of one column; the assistant's are answers to learn, or stand in the prompt alone."""

    column: str
    turns: list[Any]
    is_learned: bool = True


class Layout(NamedTuple):
    """Columns that have to be there, how they are read, and which others are read with them."""

    columns: tuple[str, ...]
    read: Callable[[Record], list[Part]]
    others: tuple[str, ...] = ()


def read_record(record: Any) -> Reading:
    """All answers of one record.

    Raises:
        UnusableRowError: it has no layout that is known, or a field is missing or of a wrong type.
    """
    if not isinstance(record, Mapping):
        raise UnusableRowError("not an object with named fields")
    given = {name: value for name, value in record.items() if value is not None}
    name = layout_of(given)
    layout = LAYOUTS[name]
    left_out = [column for column in UNREAD if given.get(column) and column not in layout.others]
    found = [(one, layout.read(one)) for one in _single(given, layout.columns)]
    turns = (turn for _, parts in found for part in parts for turn in part.turns)
    left_out += ["thoughts"] * any(turn.get(thought) for turn in turns for thought in THOUGHTS)
    reading = Reading(name + "".join(f", without its {what}" for what in left_out))
    for one, parts in found:
        _read_turns([*_system(one, parts), *parts], reading)
    if not reading.answers and not reading.unused:
        raise UnusableRowError("no turn by the assistant")
    if len(reading.answers) == 1:
        (answer,) = reading.answers
        reading.answers = [own_answer({**given, "prompt": answer.prompt, "completion": answer.completion})]
    else:
        reading.answers = [answer._replace(turn=number) for number, answer in enumerate(reading.answers, 1)]
    return reading


def own_answer(fields: Record) -> Answer:
    """The answer in our own samples' fields, some of which other data sets lack.

    Raises:
        UnusableRowError: a text is no valid Unicode.
    """
    prompt, completion, tokens = fields["prompt"], fields["completion"], fields.get("tokens")
    if not is_valid(completion) or (isinstance(prompt, str) and not is_valid(prompt)):
        raise UnusableRowError("half a surrogate pair, no valid Unicode")
    are_tokens = isinstance(tokens, list | tuple) and all(type(token) is int for token in tokens)
    return Answer(
        prompt=prompt,
        completion=completion,
        finished=bool(fields.get("finished", True)),
        tokens=tuple(tokens) if are_tokens and tokens else None,
    )


def layout_of(columns: Record) -> str:
    """The layout whose columns are all there.

    Raises:
        UnusableRowError: none is; says what is missing from one that is there in part.
    """
    for name, layout in LAYOUTS.items():
        if all(column in columns for column in layout.columns):
            return name
    for layout in LAYOUTS.values():
        if any(column in columns for column in layout.columns):
            missing = " and ".join(repr(column) for column in layout.columns if column not in columns)
            raise UnusableRowError(f"missing field {missing}")
    raise UnusableRowError("columns of no known layout")


def _single(record: Record, columns: tuple[str, ...]) -> list[Record]:
    """The records of one that holds lists of texts, as `{"prompt": ["a", "b"], "completion": ["c", "d"]}`."""
    lists = [record[column] for column in columns if isinstance(record[column], list | tuple)]
    n = len(lists[0]) if lists else 0
    if len(lists) < 2 or not all(isinstance(text, str) for values in lists for text in values):
        return [record]
    if any(len(values) != n for values in lists):
        raise UnusableRowError(f"lists of different lengths in {' and '.join(map(repr, columns))}")
    rows = {name: value for name, value in record.items() if isinstance(value, list | tuple) and len(value) == n}
    return [{**record, **{name: values[i] for name, values in rows.items()}} for i in range(n)]


def _read_turns(parts: list[Part], reading: Reading) -> None:
    """Every answer behind all turns before it, up to a turn that is not understood."""
    chat: Chat = []
    for column, is_learned, turn in [(part.column, part.is_learned, turn) for part in parts for turn in part.turns]:
        try:
            message = as_message(turn, column)
        except UnusableRowError as error:
            reading.unused.append(str(error))
            return
        is_empty = not text_of(message).strip()
        if message["role"] == "user" and is_empty:
            reading.unused.append("empty prompt or turn")
            return
        if message["role"] == "assistant" and is_learned:
            reason = _why_not(turn, message, chat)
            reading.unused += [reason] if reason else []
            reading.answers += [] if reason else [Answer(_prompt(chat), text_of(message))]
        if message["role"] != "system" or not is_empty:
            chat.append(message)


def _why_not(turn: Mapping[str, Any], message: Message, before: Chat) -> str | None:
    """Why an answer is not used, if it is not."""
    if "tool_calls" in message:
        return "a tool call, which is no text to learn"
    if not text_of(message).strip():
        return "empty completion"
    if turn.get("weight") == 0 or turn.get("train") is False:
        return "marked as not to be learned ('weight' or 'train')"
    return None if any(other["role"] != "system" for other in before) else "no prompt before the completion"


def _prompt(chat: Chat) -> str | Chat:
    return text_of(chat[0]) if len(chat) == 1 and chat[0]["role"] == "user" else list(chat)


def _system(record: Record, parts: list[Part]) -> Iterator[Part]:
    """The system turn that a column of its own gives, if the conversation has none."""
    first = parts[0].turns[0] if parts[0].turns else {}
    has_own = first.get("role", first.get("from")) in ("system", "developer")
    for column in ("system", "system_prompt"):
        if record.get(column) and not has_own:
            yield Part(column, as_turns(record[column], column, "system"), False)
            return


def _conversation(column: str) -> Layout:
    return Layout((column,), lambda record: [Part(column, as_turns(record[column], column))])


def _pair(prompt: str, completion: str) -> Layout:
    """Two texts; or two lists of turns, as TRL has them, of which those of the prompt are not learned."""

    def read(record: Record) -> list[Part]:
        asked, told = as_turns(record[prompt], prompt, "user"), as_turns(record[completion], completion, "assistant")
        return [Part(prompt, asked, False), Part(completion, told)]

    return Layout((prompt, completion), read)


def _preferred(record: Record) -> list[Part]:
    """The chosen of two answers: a text or turns behind a prompt, or turns that begin with it."""
    chosen, prompt = record["chosen"], record.get("prompt")
    if isinstance(chosen, str) and prompt is None:
        raise UnusableRowError("missing field 'prompt'")
    told = as_turns(chosen, "chosen", "assistant")
    is_whole = prompt is None or not told or told[0].get("role", told[0].get("from")) not in ("assistant", "gpt")
    return [*([] if is_whole else [Part("prompt", as_turns(prompt, "prompt", "user"), False)]), Part("chosen", told)]


def _instruction(given: str, output: str) -> Layout:
    """The input, if there is one, stands under the instruction after an empty line; a history of pairs comes before."""

    def read(record: Record) -> list[Part]:
        asked = [record["instruction"], *([record[given]] if record.get(given) else [])]
        if not all(isinstance(text, str) for text in asked):
            raise UnusableRowError(f"wrong type: 'instruction' or {given!r} is not a text")
        question = as_turns("\n\n".join(text for text in asked if text.strip()), "instruction", "user")
        last = [Part("instruction", question), Part(output, as_turns(record[output], output, "assistant"))]
        return [*_history(record.get("history") or []), *last]

    return Layout(("instruction", output), read, (given, "history"))


def _history(pairs: Any) -> Iterator[Part]:
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise UnusableRowError("wrong type: 'history' is not a list of pairs of texts")
    for asked, told in pairs:
        yield Part("history", [*as_turns(asked, "history", "user"), *as_turns(told, "history", "assistant")])


LAYOUTS: dict[str, Layout] = {
    "messages": _conversation("messages"),
    "ShareGPT": _conversation("conversations"),
    "conversation": _conversation("conversation"),
    "preferences": Layout(("chosen",), _preferred, ("prompt",)),
    "prompt and completion": _pair("prompt", "completion"),
    "prompt and response": _pair("prompt", "response"),
    "question and answer": _pair("question", "answer"),
    "Alpaca": _instruction("input", "output"),
    "Dolly": _instruction("context", "response"),
}
"""Columns that a layout takes, and its reader. Every layout may have a column `system` or `system_prompt`."""

COLUMNS = sorted(
    {"system", "system_prompt", "finished", "tokens", *UNREAD}
    | {column for layout in LAYOUTS.values() for column in (*layout.columns, *layout.others)}
)
ALLOWED = "; ".join(f"{' and '.join(map(repr, layout.columns))} ({name})" for name, layout in LAYOUTS.items())
