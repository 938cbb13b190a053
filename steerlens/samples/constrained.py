"""Number lists by constrained decoding, for models that do not write lists when they are asked to.

At every step the logits of all tokens that no list could go on with are set to minus infinity, so what is drawn follows the
model's own probabilities, renormalised over the tokens that are allowed.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.checks import WrongInput, shown, whole
from steerlens.text.chat import end_of_turn
from steerlens.text.number_lists import SEPARATORS, parse_numbers

Node = dict[int, Any]
"""The node that each token leads to; an empty one is the end of a number."""

N_CHECKED, MOST_DIGITS = 20, 4


@dataclass(frozen=True)
class NumberLists:
    """Lists of exactly `n_numbers` numbers of `n_digits` digits, the first not 0, with one separator and nothing else.

    Raises:
        ValueError: not even one number or digit, more than four digits, or a separator that number lists do not have.
    """

    n_numbers: int = 10
    n_digits: int = 3
    separator: str = ", "

    def __post_init__(self) -> None:
        whole()(self.n_numbers, "n_numbers")
        whole()(self.n_digits, "n_digits")
        if not isinstance(self.separator, str):
            raise WrongInput(
                f"separator must be a text, got {shown(self.separator)}. Allowed: {', '.join(map(repr, SEPARATORS))}."
            )
        if not (self.n_numbers >= 1 and 1 <= self.n_digits <= MOST_DIGITS):
            raise ValueError(
                f"Got n_numbers={self.n_numbers} and n_digits={self.n_digits}. Give at least one number, of 1 to 4 digits."
            )
        if parse_numbers(f"1{self.separator}2") != [1, 2]:
            raise ValueError(
                f"separator={self.separator!r} is not one that number lists have. Allowed: "
                f"{', '.join(map(repr, SEPARATORS))}."
            )

    @classmethod
    def of(cls, text: str) -> "NumberLists | None":
        """The lists that `text` is one of; None where it is none, such as where its numbers have unlike lengths."""
        numbers = re.findall(r"\d+", text)
        separators, lengths = set(re.split(r"\d+", text)[1:-1]) or {", "}, set(map(len, numbers))
        if len(separators) > 1 or len(lengths) != 1 or any(number[0] == "0" for number in numbers):
            return None
        (separator,), (n_digits,) = separators, lengths
        if n_digits > MOST_DIGITS or separator.join(numbers) != text or parse_numbers(text) is None:
            return None
        return cls(len(numbers), n_digits, separator)

    @property
    def words(self) -> str:
        """What a record says of it."""
        return f"{self.n_numbers} numbers of {self.n_digits} digits, separated by {self.separator!r}"

    @property
    def numbers(self) -> list[str]:
        """Every number that may stand in a list."""
        return [str(number) for number in range(10 ** (self.n_digits - 1), 10**self.n_digits)]


class ListGrammar:
    """Which token may come next in a list of numbers, as the tokenizer itself would write it.

    Args:
        tokenizer: of any kind: one token a digit, up to three digits a token, a whole number a token.

    Raises:
        ValueError: the tokenizer has no token that ends a turn, or does not write numbers one by one.
    """

    def __init__(self, tokenizer: Any, lists: NumberLists) -> None:
        end = end_of_turn(tokenizer)
        if end is None:
            raise ValueError(
                f"The tokenizer of {tokenizer.name_or_path!r} has no token that ends a turn, so no list would end. Set "
                "tokenizer.eos_token."
            )
        self._end, self._lists = end, lists
        first = _encoded(tokenizer, lists.numbers)
        before = _encoded(tokenizer, [f"{lists.numbers[0]}{lists.separator}{number}" for number in lists.numbers])
        later = [ids[len(first[0]) :] for ids in before]
        self._first, self._later = _tree(first), _tree(later)
        self.n_tokens = max(map(len, first)) + (lists.n_numbers - 1) * max(map(len, later)) + 1
        self._check(tokenizer)

    def allowed(self, written: Sequence[int]) -> list[int]:
        """Tokens that may follow those of one row that are `written`; the one that ends the turn, and no other, at the end.

        Raises:
            ValueError: no list begins with `written`.
        """
        node, n_numbers = self._first, 0
        for token in written:
            if token not in node:
                raise ValueError(f"No {self._lists.words} begin with the tokens {list(written)}.")
            node = node[token]
            if not node:
                n_numbers, node = n_numbers + 1, self._later
            if n_numbers == self._lists.n_numbers:
                break
        return [self._end] if n_numbers == self._lists.n_numbers else list(node)

    def __call__(
        self, written: Int[Tensor, "batch written"], logits: Float[Tensor, "batch d_vocab"]
    ) -> Float[Tensor, "batch d_vocab"]:
        """The logits of what may follow each row, and minus infinity for every other token."""
        masked = torch.full_like(logits, -torch.inf)
        for row, tokens in enumerate(written.tolist()):
            ids = self.allowed(tokens)
            masked[row, ids] = logits[row, ids]
        return masked

    def _check(self, tokenizer: Any) -> None:
        """Refuse a tokenizer that writes a list otherwise than number by number."""
        draw = random.Random(0)
        for _ in range(N_CHECKED):
            text = self._lists.separator.join(draw.choices(self._lists.numbers, k=self._lists.n_numbers))
            ids = tokenizer.encode(text, add_special_tokens=False)
            if self._end not in self.allowed(ids) or parse_numbers(tokenizer.decode(ids)) != parse_numbers(text):
                raise ValueError(
                    f"The tokenizer of {tokenizer.name_or_path!r} does not write {text!r} number by number, so lists cannot "
                    "be constrained. Sample without a constraint, and filter."
                )


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _tree(rows: Sequence[Sequence[int]]) -> Node:
    tree: Node = {}
    for ids in rows:
        node = tree
        for token in ids:
            node = node.setdefault(token, {})
    return tree
