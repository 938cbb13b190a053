"""The token sequences that count as an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.answers.tree import Path

LINE = "\n"
"""A form is encoded behind a line's end. Some tokenizers put a space before any text that they are given alone."""


def answer_tokens(tokenizer: Any, answers: Mapping[str, Sequence[str]]) -> list[list[Path]]:
    """For each answer, the tokens of its forms as given and with a capital, behind a space and without.

    A reply that stands right behind a template's tag begins with no space, one that goes on in a text does.

    Raises:
        ValueError: the tokenizer does not know a form, or writes forms of two answers alike.
    """
    found: dict[Path, str] = {}
    for answer, forms in answers.items():
        for path in {path for form in forms for path in _paths(tokenizer, form)}:
            if found.setdefault(path, answer) != answer:
                raise ValueError(
                    f"The tokenizer of {tokenizer.name_or_path!r} writes forms of {found[path]!r} and of {answer!r} alike "
                    f"({tokenizer.decode(path)!r}). Leave one out, or make both one answer."
                )
    return [sorted(path for path, given in found.items() if given == answer) for answer in answers]


def _paths(tokenizer: Any, form: str) -> set[Path]:
    written = {space + word for word in (form, form[:1].upper() + form[1:]) for space in ("", " ")}
    paths = {tuple(_continuing(tokenizer, text)) for text in written}
    known = {path for path in paths if path and tokenizer.unk_token_id not in path}
    if not known:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} does not know the answer {form!r}. Leave it out, or write it "
            "otherwise; a small model's vocabulary is listed by tokenizer.get_vocab()."
        )
    return known


def _continuing(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that stands behind another."""
    line, whole = (tokenizer.encode(words, add_special_tokens=False) for words in (LINE, LINE + text))
    if whole[: len(line)] == line:
        return whole[len(line) :]
    return tokenizer.encode(text, add_special_tokens=False)
