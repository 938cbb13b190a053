"""Blocks below the lowest that is trained run once a row, instead of once an epoch."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.forward import batch_in_flight, forward
from steerlens.memory import free_bytes
from steerlens.models.bridge import huggingface_model
from steerlens.models.replaced import forwards_replaced
from steerlens.residuals.stream import Residual, block_output, is_looked_at, stop_after, watch_residuals
from steerlens.samples.encoded import EncodedRow, batches_by_length, row_length
from steerlens.text.batches import TokenBatch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SHARE_OF_FREE = 0.25
"""How much of the machine's free memory kept residuals may take; where they need more, nothing is kept."""

RowKey = tuple[int, ...]
Kept = Mapping[RowKey, Float[Tensor, "_ d_model"]]


def lowest_trained_block(student: "TransformerBridge") -> int:
    """The first block of which something is trained; 0 where what comes before the blocks is trained too."""
    blocks = [
        any(parameter.requires_grad for parameter in block.original_component.parameters()) for block in student.blocks
    ]
    embeddings = huggingface_model(student).get_input_embeddings().parameters()
    return 0 if any(parameter.requires_grad for parameter in embeddings) else blocks.index(True)


@contextlib.contextmanager
def lower_blocks_run_once(student: "TransformerBridge", rows: Sequence[EncodedRow], batch_size: int) -> Iterator[None]:
    """Run the blocks below the lowest trained one for every row now, and inside on other rows alone.

    What they compute of a row cannot change: they are frozen, and causal. Nothing is kept of a model with dropout, in
    float32, where rows are as they would be without this to the last bit, or where memory is short. Where a hook looks on
    below, all blocks run.
    """
    hf, lowest = huggingface_model(student), lowest_trained_block(student)
    n_bytes = sum(map(row_length, rows)) * student.cfg.d_model * 2
    short = n_bytes > SHARE_OF_FREE * free_bytes(torch.device("cpu"))
    if lowest == 0 or short or hf.dtype != torch.bfloat16 or _drops(hf.config.get_text_config()):
        yield
        return
    kept = _residuals(student, lowest - 1, rows, batch_size)
    with _resumed(student, lowest - 1, kept):
        yield


def _drops(config: Any) -> bool:
    """Whether a share that is dropped is above 0, such as attention_dropout or resid_pdrop."""
    return any("drop" in name and isinstance(value, float) and value > 0 for name, value in config.to_dict().items())


@torch.no_grad()
def _residuals(student: "TransformerBridge", layer: int, rows: Sequence[EncodedRow], batch_size: int) -> Kept:
    kept: dict[RowKey, Tensor] = {}
    seen: list[Residual] = []
    with (
        stop_after(student, layer),
        watch_residuals(student, {layer: seen.append}),
        tqdm(total=len(rows), desc=f"blocks 0 to {layer}", unit="row", leave=False) as progress,
    ):
        for _, batch in batches_by_length(student, rows, batch_size):
            forward(student, batch, logits_to_keep=1)
            residual = seen.pop()
            for key, row, mask in zip(_keys(batch), residual, batch.attention_mask, strict=True):
                kept[key] = row[mask].cpu()
            progress.update(len(batch))
    return kept


def _keys(batch: TokenBatch) -> list[RowKey]:
    """A row's tokens, on which alone its residuals depend."""
    return [
        tuple(tokens[mask].tolist())
        for tokens, mask in zip(batch.tokens.cpu(), batch.attention_mask.cpu(), strict=True)
    ]


@contextlib.contextmanager
def _resumed(student: "TransformerBridge", layer: int, kept: Kept) -> Iterator[None]:
    """Give the output of block `layer` from what is kept, wherever all rows of a batch are there."""
    blocks: list[Any] = [student.blocks[index].original_component for index in range(layer + 1)]
    output, found = block_output(student), list[Residual | None]()

    def replaced(index: int, run: Callable[..., object]) -> Callable[..., object]:
        def block_forward(hidden_states: Residual, *args: Any, **kwargs: Any) -> object:
            if index == 0:
                found[:] = [None if any(map(is_looked_at, lower)) else _padded(kept, hidden_states)]
            if found[0] is None:
                return run(hidden_states, *args, **kwargs)
            return output(found[0] if index == layer else hidden_states)

        return block_forward

    bridged = [*student.blocks[:layer], student.blocks[layer].original_component]  # the last one's output is as it was
    lower = [module for block in (*bridged, *blocks) for module in block.modules()]
    with forwards_replaced({block: replaced(index, block.forward) for index, block in enumerate(blocks)}):
        yield


def _padded(kept: Kept, like: Residual) -> Residual | None:
    """The kept residuals of the batch that runs; None where there is none, or one of its rows is not there."""
    batch = batch_in_flight.get()
    if batch is None or batch.tokens.shape != like.shape[:2]:
        return None
    keys = _keys(batch)
    if not all(key in kept for key in keys):
        return None
    padded = torch.zeros_like(like)
    padded[batch.attention_mask] = torch.cat([kept[key] for key in keys]).to(like)
    return padded
