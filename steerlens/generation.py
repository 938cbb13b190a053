"""The one decode loop: a completion sampled for every chat."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.arguments import checked
from steerlens.cache import make_room
from steerlens.draw import draw
from steerlens.forward import check_numbers
from steerlens.memory import OutOfMemory, is_out_of_memory, rows_that_fit
from steerlens.models.bridge import huggingface_model
from steerlens.shared_prompts import begin, filled_cache, run_on
from steerlens.text.batches import RowsOfCall
from steerlens.text.chat import Chat, encode_prompt, end_of_turn
from steerlens.warn import warn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

COMPACT_FROM = 0.75
"""Share of a batch's rows still open at which the others leave it, which costs a copy of the cache."""

OnWritten = Callable[[int, int], None]
"""Told after every token of a batch how many rows are finished by then, and how many tokens are written."""

Restriction = Callable[[Int[Tensor, "batch written"], Float[Tensor, "batch d_vocab"]], Float[Tensor, "batch d_vocab"]]
"""Of the tokens that rows have written and the logits of the next one: the logits, -inf where a token may not follow."""


@checked
@torch.no_grad()
def generate(
    model: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    row_indices: Sequence[int] | None = None,
    batch_size: int = 256,
    on_written: OnWritten | None = None,
    restrict: Restriction | None = None,
) -> list[list[int]]:
    """Sample one completion for every chat, with a KV cache, in batches of like length.

    A row draws its own randomness from (`seed`, its index), so it does not depend on its batch, but for rounding: in half
    precision, the same row among others may take another token now and then. The checkpoint's
    generation settings (top-k, repetition penalty) are not applied.

    Args:
        temperature: 0 takes the most likely token.
        row_indices: of the chats in a larger run; 0, 1, 2 and so on by default.
        batch_size: rows at once at most; fewer where memory does not suffice, while finished batches stay.
        on_written: called after every token of a batch with the rows that are finished and the tokens that are written.
        restrict: allows some tokens and no others; probabilities are renormalised over them.

    Warns:
        UserWarning: the batch size was halved.

    Returns:
        Token ids of each completion, the token that ends it included where it was reached.

    Raises:
        ValueError: prompt and completion do not fit into the context, no chats are given, the temperature is negative, or
            the model has no cache.
        FloatingPointError: the model's logits are NaN or infinite.
        OutOfMemory: not even a row alone fits into memory; a batch that does not is halved.
    """
    if not chats:
        raise ValueError("generate got no chats. Give at least one.")
    if not temperature >= 0:
        raise ValueError(
            f"temperature={temperature} is not allowed. It must be 0 or greater; 0 takes the likeliest token."
        )
    if row_indices is not None and len(row_indices) != len(chats):
        raise ValueError(f"row_indices has {len(row_indices)} numbers for {len(chats)} chats. Give one for each chat.")
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    indices = range(len(chats)) if row_indices is None else row_indices
    whole = (len(chats), max(map(len, prompts))) if row_indices is None else (None, None)
    given = RowsOfCall(torch.tensor(indices), *whole)
    waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    completions: list[list[int]] = [[] for _ in prompts]
    hf, longest = huggingface_model(model), max(map(len, prompts)) + max_new_tokens
    batch_size = min(batch_size, rows_that_fit(hf, longest))
    while waiting:
        rows, n_tokens = waiting[:batch_size], sum(map(len, completions))
        uniform = np.stack([np.random.default_rng([seed, indices[i]]).random(max_new_tokens) for i in rows])
        try:
            written = _decode(
                model,
                [prompts[i] for i in rows],
                torch.from_numpy(uniform),
                temperature,
                _counting_from(on_written, len(prompts) - len(waiting), n_tokens),
                restrict,
                replace(given, indices=given.indices[rows]),
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batch_size = _fewer_rows(len(rows), max(len(prompts[i]) for i in rows), max_new_tokens, error)
            continue
        for i, completion in zip(rows, written, strict=True):
            completions[i] = completion
        waiting = waiting[batch_size:]
    return completions


def _counting_from(on_written: OnWritten | None, n_rows: int, n_tokens: int) -> OnWritten | None:
    """Counts of one batch become those of the whole run, of which so much is written already."""
    return None if on_written is None else lambda rows, tokens: on_written(n_rows + rows, n_tokens + tokens)


def _fewer_rows(n_rows: int, length: int, max_new_tokens: int, error: Exception) -> int:
    """How many rows to go on with where memory was out for `n_rows`; rows do not depend on their batch."""
    if n_rows == 1:
        raise OutOfMemory(
            f"Memory is out for a single row of {length} tokens and {max_new_tokens} new ones. Lower max_new_tokens, shorten "
            "the prompt, or load the weights in bfloat16."
        ) from error
    fewer, reason = (n_rows + 1) // 2, (str(error) or "of the machine").splitlines()[0]
    warn(f"Memory is out at {n_rows} rows ({reason}); goes on with {fewer} at a time.")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return fewer


def _decode(
    model: "TransformerBridge",
    prompts: Sequence[list[int]],
    uniform: Float[Tensor, "batch new"],
    temperature: float,
    on_written: OnWritten | None = None,
    restrict: Restriction | None = None,
    rows_of_call: RowsOfCall | None = None,
) -> list[list[int]]:
    """One batch, in which what all prompts begin with runs once, and which rows leave as they end."""
    n_rows, max_new_tokens = uniform.shape
    sequence, cache, past = begin(model, prompts, [[0] * max_new_tokens] * n_rows, rows_of_call)
    device, end = sequence.tokens.device, sequence.tokens.shape[1] - max_new_tokens
    uniform, ends = uniform.to(device), end_tokens(model).to(device)
    written = torch.full((n_rows, max_new_tokens), -1, device=device)
    rows = torch.arange(n_rows, device=device)
    open_rows = torch.ones(n_rows, dtype=torch.bool, device=device)
    continued, n_written = None if cache is None else torch.zeros_like(rows), 0
    for step in range(max_new_tokens):
        out = run_on(model, sequence, cache, past, end + step, continued)
        cache, past, continued = filled_cache(model, out), end + step, None
        logits = out.logits[:, -1] if restrict is None else restrict(written[rows, :step], out.logits[:, -1])
        tokens = draw(logits, uniform[rows, step], temperature)
        written[rows, step] = torch.where(open_rows, tokens, -1)
        sequence.tokens[:, past] = tokens
        open_rows &= ~torch.isin(tokens, ends)
        n_written += int((written[:, step] >= 0).sum())
        n_open = int(open_rows.sum())
        if on_written is not None:
            on_written(n_rows - n_open, n_written)
        if n_open == 0:
            break
        if step == 0:
            make_room(cache, end + max_new_tokens)
        if n_open <= COMPACT_FROM * len(rows):
            check_numbers(model, out.logits[:, -1])  # what is NaN once stays so, by way of the cache
            continued = open_rows.nonzero()[:, 0]
            rows, open_rows, sequence = rows[continued], open_rows[continued], sequence.select(continued)
    check_numbers(model, out.logits[:, -1])
    return [[token for token in row if token >= 0] for row in written.tolist()]


def is_finished(model: "TransformerBridge", completion: Sequence[int]) -> bool:
    """Whether a generated completion came to its end, rather than to the limit of its length."""
    return bool(completion) and completion[-1] in end_tokens(model).tolist()


def end_tokens(model: "TransformerBridge") -> Int[Tensor, " end"]:
    """The tokens that end a completion: those of the generation config, the tokenizer's, and the template's."""
    configured = huggingface_model(model).generation_config
    ends = configured.eos_token_id if configured is not None else None
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    own = {model.tokenizer.eos_token_id, end_of_turn(model.tokenizer)} - {None}
    return torch.tensor(sorted({*ends, *own}), dtype=torch.long)
