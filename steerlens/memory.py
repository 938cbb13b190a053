"""How much memory there is, how many rows fit into it, and an error that says what to lower where it does not do."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARE_OF_FREE = 0.5
"""How much of the free memory a batch of rows is planned for."""

WIDTHS_A_TOKEN = 24
"""What a block holds at once for a token of a prompt, in residual widths: normed copies, queries, three maps of an MLP."""

KEPT_WIDTHS_A_TOKEN = 40
"""What a block keeps of a token until its gradient is there, in residual widths."""

BYTES_A_LOGIT = 28
"""What a logit takes where it is compared with another prediction: itself in both dtypes, probabilities, and their gradients."""


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device; what torch has reserved on a GPU and does not use is free as well."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved


def rows_that_fit(model: "PreTrainedModel", n_tokens: int) -> int:
    """Rows of `n_tokens`, prompt and completion, that can be written at once; at least 1."""
    return max(1, int(SHARE_OF_FREE * free_bytes(model.device) / bytes_a_row(model, n_tokens)))


def rows_to_differentiate(model: "PreTrainedModel", n_tokens: int) -> int:
    """Rows of `n_tokens` whose activations can be kept at once until their gradients are there; at least 1."""
    return max(1, int(SHARE_OF_FREE * free_bytes(model.device) / bytes_to_differentiate(model, n_tokens)))


def bytes_to_differentiate(model: "PreTrainedModel", n_tokens: int) -> int:
    """What all blocks keep of one row until its gradient is there."""
    config = model.config.get_text_config()
    return n_tokens * config.num_hidden_layers * KEPT_WIDTHS_A_TOKEN * config.hidden_size * model.dtype.itemsize


def bytes_to_compare(model: "PreTrainedModel", n_predictions: int) -> int:
    """What the next-token distributions at so many tokens take, next to their targets and with their gradients."""
    return n_predictions * model.config.get_text_config().vocab_size * BYTES_A_LOGIT


def bytes_a_row(model: "PreTrainedModel", n_tokens: int) -> int:
    """Memory of one row while it is written: its cache and a copy, its logits and their weights, one block's activations."""
    config, size = model.config.get_text_config(), model.dtype.itemsize
    heads = config.num_attention_heads
    cached = (getattr(config, "num_key_value_heads", None) or heads) * (
        getattr(config, "head_dim", None) or config.hidden_size // heads
    )
    cache = 2 * config.num_hidden_layers * cached * size
    activations = WIDTHS_A_TOKEN * config.hidden_size * size
    return n_tokens * (2 * cache + activations) + config.vocab_size * (size + 8)


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
