"""Rows of token ids become one padded batch, with its masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.text.positions import POSITIONS, Positions

TokenMask = Bool[Tensor, "row pos"]
"""Tokens of one's own choice, True where they are meant; a row for each prompt, padding included."""


@dataclass(frozen=True)
class RowsOfCall:
    """Which of the prompts that a function was given a batch holds, where it runs them in several batches.

    `n_rows`, how many were given, and `width`, the longest one's tokens, are None where these are a part of a larger run.
    """

    indices: Int[Tensor, " batch"]
    n_rows: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class TokenBatch:
    """Padded rows of prompt tokens, each followed by completion tokens (possibly none).

    `tokens`, `attention_mask` and `completion_mask` are [batch pos]. Rows keep their order. Prompt
    tokens are those that are attended to and are not completion tokens. Without `rows`, the batch is all there is.
    """

    tokens: Int[Tensor, "batch pos"]
    attention_mask: Bool[Tensor, "batch pos"]
    completion_mask: Bool[Tensor, "batch pos"]
    rows: RowsOfCall | None = None

    @property
    def position_ids(self) -> Int[Tensor, "batch pos"]:
        """0 at each row's first real token, whatever the padding side."""
        return (self.attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    @property
    def prompt_mask(self) -> Bool[Tensor, "batch pos"]:
        """True at the tokens of the rendered prompt, the assistant tag included."""
        return self.attention_mask & ~self.completion_mask

    @property
    def last_prompt(self) -> Int[Tensor, " batch"]:
        """Index of each row's last prompt token, from which the first completion token is predicted."""
        slots = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return torch.where(self.prompt_mask, slots, -1).amax(-1)

    @property
    def prediction_mask(self) -> Bool[Tensor, "batch pos"]:
        """True where the next token is a completion token: the positions whose logits matter."""
        return torch.nn.functional.pad(self.completion_mask[:, 1:], (0, 1), value=False)

    @property
    def n_predicting(self) -> int:
        """How many positions, counted from the end, hold everything that predicts a completion token."""
        return self.tokens.shape[1] - int(self.prediction_mask.any(0).nonzero()[0])

    def position_mask(self, positions: Positions) -> Bool[Tensor, "batch pos"]:
        """The tokens that `positions` names."""
        if positions == "all":
            return self.attention_mask
        if positions == "prompt":
            return self.prompt_mask
        if positions == "generated":
            return self.completion_mask
        if positions == "last_prompt":
            return torch.nn.functional.one_hot(self.last_prompt, self.tokens.shape[1]).bool()
        raise ValueError(f"positions={positions!r} is not known. Allowed: {', '.join(POSITIONS)}.")

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def select(self, rows: Int[Tensor, " row"] | slice) -> "TokenBatch":
        """Some of the rows, or the same in another order."""
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TokenBatch":
        rows = None if self.rows is None else replace(self.rows, indices=change(self.rows.indices))
        return TokenBatch(change(self.tokens), change(self.attention_mask), change(self.completion_mask), rows)

    def __len__(self) -> int:
        return self.tokens.shape[0]


def pad_rows(
    tokenizer: Any,
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]] | None = None,
    *,
    side: Literal["left", "right"] = "left",
    rows_of_call: RowsOfCall | None = None,
) -> TokenBatch:
    """Pad token rows to one width.

    Args:
        prompts: token ids of each rendered prompt.
        completions: token ids that follow each prompt; none by default.
        side: where the padding goes. Left keeps the next-token positions aligned.
        rows_of_call: which rows these are, where a function runs more of them than this batch.
    """
    completions = completions if completions is not None else [[] for _ in prompts]
    rows = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    def padded(values: list[list[int]], fill: int) -> Tensor:
        if side == "left":
            return torch.tensor([[fill] * (width - len(row)) + row for row in values])
        return torch.tensor([row + [fill] * (width - len(row)) for row in values])

    return TokenBatch(
        tokens=padded(rows, pad),
        attention_mask=padded([[1] * len(row) for row in rows], 0).bool(),
        completion_mask=padded(
            [[0] * len(prompt) + [1] * len(answer) for prompt, answer in zip(prompts, completions)], 0
        ).bool(),
        rows=rows_of_call,
    )


def shared_prefix(rows: Sequence[list[int]]) -> int:
    """Number of tokens with which all rows begin."""
    first, last = min(rows), max(rows)
    return next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
