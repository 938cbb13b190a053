"""The checker that holds every call of the library to its annotations during the tests; int passes for float."""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_checkers: dict[tuple[str, str, str], Callable[..., Any]] = {}


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """A checker of calls like those of `function`, which jaxtyping makes of a signature and which does nothing.

    A function within a function is made anew at each call, thousands of times; all of one signature share a checker.
    """
    if "<locals>" not in function.__qualname__:
        return _beartype(function)
    key = (function.__module__, function.__qualname__, str(inspect.signature(function)))
    if key not in _checkers:
        _checkers[key] = _beartype(function)
    return _checkers[key]
