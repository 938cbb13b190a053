"""Checks of single arguments. A refusal says what was got, what is wanted and how to make it."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

Check = Callable[[Any, str], Any]
"""Takes a value and the name of its argument, and gives back the value as functions use it."""

LONGEST_NAME = 255
"""Bytes of a file's name on common systems."""


class WrongInput(TypeError, ValueError):
    """An argument of the wrong kind. Code that catches either of the two built-in errors catches it."""


def shown(value: object) -> str:
    """A value as a message names it: its beginning, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def a_text(value: Any, name: str) -> str:
    """A text with more than white space in it.

    Raises:
        WrongInput: it is no text.
        ValueError: it is empty.
    """
    if not isinstance(value, str):
        raise WrongInput(f"{name} must be a text, got {shown(value)}.")
    if not value.strip():
        raise ValueError(f"{name} is an empty text, got {value!r}. Give it some words.")
    return value


def several(values: Any, name: str, wanted: str, example: str, *, at_least: int = 1) -> list[Any]:
    """Things of a kind, at least one unless told otherwise.

    Raises:
        WrongInput: a single text, a mapping, or nothing that has members.
        ValueError: there are none.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise WrongInput(f"{name} must be several {wanted}, got {shown(values)}. Write {example}.")
    if len(given := list(values)) < at_least:
        raise ValueError(f"{name} is empty. Give at least one: {example}.")
    return given


def texts(values: Any, name: str, example: str, *, at_least: int = 0) -> tuple[str, ...]:
    """Texts, each with more than white space in it. Messages end with `example`, the way to write them.

    Raises:
        WrongInput: a single text, or anything else that is no list of texts.
        ValueError: one is empty, or there are too few.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise WrongInput(f"{name} must be several texts, got {shown(values)}. Write {example}.")
    given = tuple(a_text(value, f"{name}[{index}]") for index, value in enumerate(values))
    if len(given) < at_least:
        raise ValueError(f"{name} has {len(given)} texts and needs at least {at_least}. Write {example}.")
    return given


def a_chat(value: Any, name: str) -> list[Any]:
    """Messages, each with a role; what their content may be is for the chat template to say.

    Raises:
        WrongInput: anything else.
        ValueError: there are no messages.
    """
    if isinstance(value, str):
        raise WrongInput(
            f"{name} must be a chat, got {shown(value)}. Make one of a question: steerlens.as_chat({value!r})."
        )
    messages = several(value, name, "messages", '[{"role": "user", "content": "..."}]')
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise WrongInput(
                f'{name} must be a chat, a list of messages such as {{"role": "user", "content": "..."}}, but holds '
                f"{shown(message)}. Make a chat of a question: steerlens.as_chat(question)."
            )
    return messages


def chats(values: Any, name: str) -> list[Any]:
    """At least one chat; raises as `a_chat`."""
    example = f"{name}=[steerlens.as_chat(question) for question in questions]"
    given = several(values, name, "chats", example)
    if isinstance(given[0], Mapping):
        raise WrongInput(f"{name} must be several chats, got a single one. Write {name}=[chat].")
    return [a_chat(chat, f"{name}[{index}]") for index, chat in enumerate(given)]


def a_question(value: Any, name: str) -> Any:
    """A text or a chat."""
    return a_text(value, name) if isinstance(value, str) else a_chat(value, name)


def questions(values: Any, name: str) -> list[Any]:
    """At least one user turn, each a text or a chat; raises as `a_text` and `a_chat`."""
    given = several(values, name, "texts or chats", f'{name}=["What is your favorite animal?", ...]')
    if isinstance(given[0], Mapping):
        raise WrongInput(f"{name} must be several texts or chats, got a single chat. Write {name}=[chat].")
    return [a_question(value, f"{name}[{index}]") for index, value in enumerate(given)]


@functools.cache
def whole(least: int | None = None) -> Check:
    """A whole number, `least` or greater."""
    allowed = "a whole number" if least is None else f"a whole number, {least} or greater"

    def check(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise WrongInput(f"{name} must be {allowed}, got {shown(value)}.")
        if least is not None and value < least:
            raise ValueError(f"{name}={value} is not allowed. It must be {allowed}.")
        return int(value)

    return check


@functools.cache
def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """A finite number from `low` to `high`."""
    bounds = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
    allowed = ", ".join(["a finite number", *bounds])

    def check(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise WrongInput(f"{name} must be {allowed}, got {shown(value)}.")
        if not (math.isfinite(given := float(value)) and low <= given <= high):
            raise ValueError(f"{name}={value} is not allowed. It must be {allowed}.")
        return given

    return check


def a_flag(value: Any, name: str) -> bool:
    """True or False; nothing else stands for one of them, as the text "no" would for True."""
    if not kinds_of(value) & {"bool", "bool_"}:
        raise WrongInput(f"{name} must be True or False, got {shown(value)}.")
    return bool(value)


def numbers(axes: str) -> Check:
    """Numbers as an array, one axis for each of the names in `axes`, or any number of axes where one begins with a star.

    Lists become arrays.
    """
    names = axes.split()

    def check(value: Any, name: str) -> Any:
        import numpy as np

        try:
            given = np.asarray(value if isinstance(value, Iterable | Real) and not isinstance(value, str) else [])
            given = given.astype(float)
        except (TypeError, ValueError, RuntimeError):  # texts; rows of unlike length; a tensor on a GPU
            given = np.empty(0)
        if not given.size or not (given.ndim == len(names) or "*" in axes):
            raise WrongInput(f"{name} must be an array of numbers [{', '.join(names)}], got {shown(value)}.")
        return given

    return check


def a_tensor(axes: str, dtypes: Sequence[str]) -> Check:
    """A torch tensor of one of these dtypes, one axis for each of the names in `axes`, or any number where there are dots."""
    names = axes.split()

    def check(value: Any, name: str) -> Any:
        is_tensor = "Tensor" in kinds_of(value)
        of_kind = is_tensor and str(value.dtype).removeprefix("torch.") in dtypes
        if not of_kind or not (value.ndim == len(names) or "..." in axes):
            kind = "float" if "float32" in dtypes else "whole numbers"
            got = f"a tensor of {value.dtype} and shape {tuple(value.shape)}" if is_tensor else shown(value)
            raise WrongInput(
                f"{name} must be a tensor of {kind} [{', '.join(names)}], got {got}. Write torch.tensor([...])."
            )
        return value

    return check


def each(check: Check, wanted: str, example: str, *, at_least: int = 1) -> Check:
    """Several things that pass `check`."""

    def check_each(values: Any, name: str) -> list[Any]:
        given = several(values, name, wanted, f"{name}={example}", at_least=at_least)
        return [check(value, f"{name}[{index}]") for index, value in enumerate(given)]

    return check_each


def a_path(value: Any, name: str) -> Any:
    """A path, as a text or a Path, of names that a file can have."""
    if not isinstance(value, str | Path):
        raise WrongInput(f"{name} must be a path, got {shown(value)}.")
    longest = max((len(part.encode()) for part in Path(value).parts), default=0)
    if longest > LONGEST_NAME:
        raise WrongInput(
            f"{name} must be a path, got {shown(str(value))}, in which a name has {longest:,} bytes. Files have names of up to "
            f"{LONGEST_NAME}; give the path of the file, not its text."
        )
    return value if isinstance(value, Path) else a_text(value, name)


def a_device(value: Any, name: str) -> Any:
    """A torch device, or its name."""
    import torch

    try:
        return torch.device(value) if isinstance(value, str) else torch.device(value.type, value.index)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise WrongInput(
            f"{name} must be the name of a device, such as 'cpu', 'cuda' or 'cuda:1', got {shown(value)}."
        ) from error


def a_function(value: Any, name: str) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise WrongInput(f"{name} must be a function, got {shown(value)}.")
    return value


def kinds_of(value: object) -> set[str]:
    """Names of the value's class and of all that it inherits from."""
    return {kind.__name__ for kind in type(value).__mro__}


def a_model(value: Any, name: str) -> Any:
    """A loaded model with its tokenizer.

    Raises:
        WrongInput: a name or path, a plain Hugging Face model, a trained student, or anything else.
    """
    kinds, wanted = kinds_of(value), f"{name} must be a model that steerlens has loaded"
    if isinstance(value, str | Path):
        raise WrongInput(
            f"{wanted}, got the name {str(value)!r}. Load it: {name} = steerlens.load_model({str(value)!r})."
        )
    if "PreTrainedModel" in kinds or "PeftModel" in kinds:
        raise WrongInput(
            f"{wanted}, got a Hugging Face model ({type(value).__name__}). Wrap it: {name} = "
            "steerlens.wrap_model(model, tokenizer, name=...)."
        )
    if "HookedTransformer" in kinds:
        raise WrongInput(
            f"{wanted}, got a HookedTransformer, the older class of TransformerLens. Load the same weights anew: {name} = "
            "steerlens.load_model(name_or_directory)."
        )
    if "Student" in kinds:
        raise WrongInput(f"{wanted}, got a Student. Give its model: student.model.")
    if not (hasattr(value, "original_model") and hasattr(value, "blocks")):
        raise WrongInput(f"{wanted}, got {shown(value)}. Load one: {name} = steerlens.load_model(name_or_directory).")
    if getattr(value, "tokenizer", None) is None:
        raise WrongInput(f"{wanted} with its tokenizer, got one without. Set {name}.tokenizer.")
    return value
