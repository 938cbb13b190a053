"""Warnings that name the user's line, whatever lies between it and the place that warns."""

import sys
import warnings

PASSED_OVER = ("steerlens", "contextlib", "torch", "transformers", "jaxtyping", "beartype")
"""Modules that a call goes through on its way."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called steerlens."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_passed_over(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_passed_over(module: str) -> bool:
    return module.split(".")[0] in PASSED_OVER
