"""TEXT -> STATE: read residual streams, whole or as streaming means."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.forward import check_numbers, forward, head_at
from steerlens.models.bridge import parameters_device
from steerlens.residuals.stream import nothing_beyond, watch_residuals
from steerlens.shared_prompts import begin, run_on
from steerlens.text.batches import RowsOfCall, TokenBatch, pad_rows
from steerlens.text.chat import Chat, encode_chat
from steerlens.text.positions import Positions

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LayerResiduals = dict[int, Float[Tensor, "token d_model"]]


@checked
def capture_residuals(
    model: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    layers: Sequence[int],
    positions: Positions = "last_prompt",
    batch_size: int = 64,
) -> Float[Tensor, "layer token d_model"]:
    """Residuals at the output of each block in `layers`, at the chosen tokens of every chat.

    The tokens of a chat stand together and chats keep their order; with "last_prompt" there is one token
    a chat, so that axis 1 is the chat. A last message by the assistant is the completion ("generated").
    Batch size and padding do not change the answer.

    Returns:
        float32 on the CPU, [layer token d_model].

    Raises:
        ValueError: a layer is out of range, no chats are given, or a chat cannot be rendered.
    """
    chunks = [
        torch.stack([residuals[layer].float().cpu() for layer in layers])
        for residuals in _residual_batches(model, chats, layers, positions, batch_size)
    ]
    return torch.cat(chunks, dim=1)


@checked
def mean_residuals(
    model: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    layers: Sequence[int],
    positions: Positions = "last_prompt",
    batch_size: int = 64,
) -> Float[Tensor, "layer d_model"]:
    """Mean of `capture_residuals` over all tokens, without ever holding more than one batch.

    Returns:
        float32 on the CPU, summed in float64.

    Raises:
        FloatingPointError: residuals are NaN or infinite.
    """
    total, count = torch.zeros(len(layers), model.cfg.d_model, dtype=torch.float64), 0
    for residuals in _residual_batches(model, chats, layers, positions, batch_size):
        total += torch.stack([residuals[layer].double().sum(0).cpu() for layer in layers])
        count += len(residuals[layers[0]])
    mean = (total / count).float()
    check_numbers(model, mean, of="residuals")
    return mean


def _residual_batches(
    model: "TransformerBridge",
    chats: Sequence[Chat],
    layers: Sequence[int],
    positions: Positions,
    batch_size: int,
) -> Iterator[LayerResiduals]:
    if not chats or not layers:
        raise ValueError(f"Got {len(chats)} chats and {len(layers)} layers. Give at least one of each.")
    rows = [encode_chat(model.tokenizer, chat) for chat in chats]
    if positions == "generated" and not any(completion for _, completion in rows):
        raise ValueError("positions='generated' needs chats that end with an assistant message; none does.")
    starts, width = range(0, len(rows), batch_size), max(len(prompt) for prompt, _ in rows)
    for start in tqdm(starts, desc="capture", unit="batch", leave=False, disable=len(starts) < 20):
        part = rows[start : start + batch_size]
        of_call = RowsOfCall(torch.arange(start, start + len(part)), len(rows), width)
        yield _read_rows(model, part, of_call, layers, positions)


@torch.no_grad()
def _read_rows(
    model: "TransformerBridge",
    rows: Sequence[tuple[list[int], list[int]]],
    rows_of_call: RowsOfCall,
    layers: Sequence[int],
    positions: Positions,
) -> LayerResiduals:
    """As `read_residuals`; what all rows begin with runs once, where none of it is to be read."""
    prompts, completions = zip(*rows, strict=True)
    if positions in ("all", "prompt"):
        batch = pad_rows(model.tokenizer, prompts, completions, rows_of_call=rows_of_call)
        return read_residuals(model, batch.to(parameters_device(model)), layers, positions)
    batch, cache, past = begin(model, prompts, completions, rows_of_call)
    if cache is None:
        return read_residuals(model, batch, layers, positions)
    with _read(model, layers, batch.position_mask(positions)[:, past:], first=False) as seen:
        each_continues_it = torch.zeros(len(batch), dtype=torch.long, device=batch.tokens.device)
        run_on(model, batch, cache, past, batch.tokens.shape[1], each_continues_it)
    return seen


@torch.no_grad()
def read_residuals(
    model: "TransformerBridge", batch: TokenBatch, layers: Sequence[int], positions: Positions, *, first: bool = False
) -> LayerResiduals:
    """One forward; the residuals at `positions` of every row, in row order, still on the device.

    Args:
        first: before the edits of a steering that is on, not after them.
    """
    nowhere = torch.zeros_like(batch.attention_mask[:, -1:])
    with _read(model, layers, batch.position_mask(positions), first=first) as seen, head_at(model, nowhere):
        forward(model, batch, logits_to_keep=1)
    return seen


@contextlib.contextmanager
def _read(
    model: "TransformerBridge", layers: Sequence[int], mask: Bool[Tensor, "batch pos"], *, first: bool
) -> Iterator[LayerResiduals]:
    seen: LayerResiduals = {}

    def keep(layer: int):
        def read(resid: Float[Tensor, "batch pos d_model"]) -> None:
            seen[layer] = resid[mask]

        return read

    n_read = mask.shape[1] - int(mask.any(0).int().argmax())
    with (
        nothing_beyond(model, max(layers), n_read),
        watch_residuals(model, {layer: keep(layer) for layer in layers}, first=first),
    ):
        yield seen
