"""Warnings that name the user's line, whatever lies between it and the place that warns."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

PASSED_OVER = (
    "steerlens",
    "contextlib",
    "concurrent",
    "multiprocessing",
    "torch",
    "transformers",
    "jaxtyping",
    "beartype",
)
"""Modules that a call goes through on its way."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called steerlens."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_passed_over(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextlib.contextmanager
def peft_unwarned() -> Iterator[None]:
    """peft reads an attribute by the name that transformers gave up; a user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


@contextlib.contextmanager
def in_plain_words() -> Iterator[None]:
    """On a command line, a warning is a line of its own, without the line of code, which no user wrote."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"Note: {message}", file=sys.stderr)
        else:
            others(message, category, filename, *rest)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = others


def _is_passed_over(module: str) -> bool:
    return module.split(".")[0] in PASSED_OVER
