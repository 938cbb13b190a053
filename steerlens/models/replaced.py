"""Let modules compute something else for a while."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from torch import nn


@contextlib.contextmanager
def forwards_replaced(forwards: Mapping[nn.Module, Callable[..., object]]) -> Iterator[None]:
    """Give modules a `forward` of their instance's own, past the attribute setting of bridges.

    One that an instance has already, such as accelerate's for a model on several devices, is put back.
    """
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward
