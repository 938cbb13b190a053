"""Arguments are looked at where they come in. A refusal says what was got, what is wanted and how to write it."""

from collections.abc import Iterable
from typing import Any


class WrongInput(TypeError, ValueError):
    """An argument of the wrong kind. Code that catches either of the two built-in errors catches it."""


def shown(value: object) -> str:
    """A value as a message names it: its type, and its beginning."""
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
