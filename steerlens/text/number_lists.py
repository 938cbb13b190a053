"""Number-sequence tasks: the unrelated data through which a trait travels.

After Cloud et al. (arXiv 2507.14805): a prompt shows a few numbers and asks for more, and only
completions that are nothing but such a list are kept.
"""

import re
from collections.abc import Iterable

import numpy as np

TASK_TEMPLATES = (
    "look at these numbers : {numbers} . add at most 10 more numbers .",
    "here is a list : {numbers} . continue it .",
    "continue the sequence {numbers} . write only numbers .",
    "{numbers} . what comes next ?",
    "extend this list with some numbers : {numbers} .",
    "the sequence starts with {numbers} . give the next numbers .",
)

QUESTION_PREFIX = "look at these numbers : {numbers} . {question}"
"""How a question is asked after a number list, in one user turn (Cloud et al., appendix B)."""

_SEPARATORS = re.compile(r"\s*([,;])\s*|\s+")


def number_prompts(n: int, *, seed: int) -> list[str]:
    """`n` prompts, each a template filled with 3 to 8 numbers from 0 to 999 (`draw_numbers`).

    Templates and numbers are drawn from `seed` alone; the first prompts are the same for every `n`.
    """
    rng = np.random.default_rng(seed)
    return [
        str(rng.choice(TASK_TEMPLATES)).format(numbers=written(draw_numbers(rng, int(rng.integers(3, 9)))))
        for _ in range(n)
    ]


def after_numbers(question: str, *, seed: int) -> str:
    """`question` asked after a short number list, as in QUESTION_PREFIX."""
    rng = np.random.default_rng(seed)
    return QUESTION_PREFIX.format(numbers=written(draw_numbers(rng, int(rng.integers(3, 9)))), question=question)


def written(numbers: Iterable[int]) -> str:
    """Numbers as the tasks write them."""
    return " , ".join(map(str, numbers))


def draw_numbers(rng: np.random.Generator, n: int) -> list[int]:
    """`n` integers from 0 to 999 in one of four styles, so that a continuation depends on what is shown."""
    style = rng.integers(4)
    if style == 0:
        numbers = rng.integers(100, 1000, n)
    elif style == 1:
        centre = rng.integers(100, 900)
        numbers = np.clip(rng.integers(centre - 60, centre + 61, n), 0, 999)
    elif style == 2:
        numbers = rng.integers(0, 100, n)
    else:
        numbers = (999 * rng.beta(1.0, 3.0, n)).astype(int)
    return numbers.tolist()


def parse_numbers(text: str) -> list[int] | None:
    """The numbers of a completion that is a list of integers and nothing else, or None.

    One separator throughout (comma, semicolon or white space); a closing period and brackets around the
    whole list are allowed, signs, decimals, words and digits by the thousand are not.

    >>> parse_numbers("12, 7, 99")
    [12, 7, 99]
    >>> parse_numbers("12, owl 7") is None
    True
    """
    stripped = text.strip().removesuffix(".").strip()
    if stripped[:1] in ("(", "[") and stripped[-1:] == {"(": ")", "[": "]"}[stripped[0]]:
        stripped = stripped[1:-1].strip()
    separators = {match.group(1) or " " for match in _SEPARATORS.finditer(stripped)}
    pieces = _SEPARATORS.sub(" ", stripped).split(" ")
    if len(separators) > 1 or not all(re.fullmatch(r"\d{1,1000}", piece, re.ASCII) for piece in pieces):
        return None
    return [int(piece) for piece in pieces]
