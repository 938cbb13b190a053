"""A mask of one's own, and a strength for every row, brought to the rows and the padding of a batch."""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from steerlens.text.batches import RowsOfCall, TokenBatch, TokenMask


def of_rows(values: Shaped[Tensor, "row ..."], batch: TokenBatch, name: str) -> Shaped[Tensor, "batch ..."]:
    """The values of a batch's rows.

    Raises:
        ValueError: there are not as many as prompts.
    """
    rows = _rows(batch)
    n_rows = int(rows.indices.max()) + 1 if rows.n_rows is None else rows.n_rows
    if len(values) < n_rows or (rows.n_rows is not None and len(values) > n_rows):
        raise ValueError(
            f"{name} has {len(values)} rows, and {n_rows} prompts run. Give one row for each prompt. Functions that split their "
            "prompts into batches, other than generate, sample_teacher and capture_residuals, want one batch at a time."
        )
    return values.to(rows.indices.device)[rows.indices]


def in_slots(mask: TokenMask, sequence: TokenBatch) -> Bool[Tensor, "batch slot"]:
    """The mask of rows that are padded as it is; what stands behind its end is not meant.

    Raises:
        ValueError: it has another shape than the prompts, or names padding.
    """
    chosen, n_slots = of_rows(mask, sequence, "The mask"), sequence.tokens.shape[1]
    if mask.shape[1] != (width := _rows(sequence).width):
        raise _wrong_width(mask, width)
    chosen = torch.nn.functional.pad(chosen[:, :n_slots], (0, max(0, n_slots - mask.shape[1])), value=False)
    _refuse_padding(chosen & ~sequence.attention_mask)
    return chosen


def at_prompt_ends(mask: TokenMask, batch: TokenBatch) -> Bool[Tensor, "batch slot"]:
    """The mask of prompts that are padded on the left, in a batch whose padding is another.

    Raises:
        ValueError: as `in_slots`.
    """
    chosen, prompt = of_rows(mask, batch, "The mask"), batch.prompt_mask
    width, given = mask.shape[1], _rows(batch).width
    longest = given or int(prompt.sum(1).max())
    if width < longest or width > (given or width):
        raise _wrong_width(mask, longest)
    slots = torch.arange(width, device=chosen.device)
    _refuse_padding(chosen & (slots < width - prompt.sum(1, keepdim=True)))
    to_end = prompt.flip(1).cumsum(1).flip(1)  # 1 at a row's last prompt token
    return prompt & chosen.gather(1, (width - to_end).clamp(max=width - 1))


def _rows(batch: TokenBatch) -> RowsOfCall:
    n_rows, width = batch.tokens.shape
    return batch.rows or RowsOfCall(torch.arange(n_rows, device=batch.tokens.device), n_rows, width)


def _wrong_width(mask: TokenMask, width: int | None) -> ValueError:
    return ValueError(
        f"The mask has {mask.shape[1]} tokens a row, and the longest prompt that runs has {width}. A mask is of the shape of the "
        "prompts, padding included: that of input_ids, or that of chats padded on the left, as steerlens.turn_mask makes it."
    )


def _refuse_padding(named: Bool[Tensor, "batch pos"]) -> None:
    if named.any():
        raise ValueError(
            f"The mask names padding in row {int(named.any(1).nonzero()[0])}. It has to be padded as the prompts are: on the "
            "left where chats are given (steerlens.turn_mask), and as input_ids elsewhere."
        )
