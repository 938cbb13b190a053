"""Memory that does not do: said with what to lower."""

import contextlib
from collections.abc import Iterator

import torch


class OutOfMemory(torch.OutOfMemoryError):
    """Memory is out, on whatever device; the message says what to lower."""


@contextlib.contextmanager
def lower_where_memory_is_out(advice: str) -> Iterator[None]:
    """Add to an error of short memory what can be done about it.

    Raises:
        OutOfMemory: the block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"Memory is out ({(str(error) or 'of the machine').splitlines()[0]}). {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory did not do."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )
