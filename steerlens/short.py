"""Results in a few words, as a notebook cell shows them."""

from collections.abc import Sequence

LONGEST = 400
"""Characters of a result in a cell."""


def cut(text: str, length: int = LONGEST) -> str:
    """A text on one line, or its beginning where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def some(items: Sequence[object], n: int = 6) -> str:
    """Items by name, the first and last of them where there are many: "0, 1, 2, ... 79"."""
    if len(items) <= n:
        return ", ".join(map(str, items))
    return f"{', '.join(map(str, items[: n - 2]))}, ... {items[-1]}"
