"""Run a model on token batches: one forward, and the one decode loop."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from steerlens.arguments import checked
from steerlens.cache import NAME, cache_of, continue_rows, gaps_are_safe, make_room, n_cached
from steerlens.draw import draw
from steerlens.memory import OutOfMemory, is_out_of_memory, rows_that_fit
from steerlens.models.bridge import huggingface_model, parameters_device, trunk
from steerlens.models.identity import bridge_mode, model_name
from steerlens.text.batches import RowsOfCall, TokenBatch, pad_rows, shared_prefix
from steerlens.text.chat import Chat, encode_prompt, end_of_turn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

batch_in_flight: ContextVar[TokenBatch | None] = ContextVar("batch_in_flight", default=None)
"""The batch that a forward runs: all of it, or behind a cache the slots that follow."""

SHARE_FROM = 64
"""Tokens of a common beginning from which it runs once for a batch, whatever the model's size. In a large model fewer do:
as many as save `WORTH_SHARING`. In the organism, with half a million parameters, they save nothing, and rounding in another
order would change one of a thousand documented rows."""

WORTH_SHARING = 10**9
"""Shared tokens times the model's parameters (half of the operations that are saved a row) from which sharing pays."""

PLAIN_ATTENTION = 512
"""The longest rows, in tokens, that attend plainly under gradients on a CPU."""

LARGE_HEAD = 1_000_000
"""Weights of a head from which it pays to compute no more logits than are read."""

COMPACT_FROM = 0.75
"""Share of a batch's rows still open at which the others leave it, which costs a copy of the cache."""

OnWritten = Callable[[int, int], None]
"""Told after every token of a batch how many rows are finished by then, and how many tokens are written."""


Restriction = Callable[[Int[Tensor, "batch written"], Float[Tensor, "batch d_vocab"]], Float[Tensor, "batch d_vocab"]]
"""Of the tokens that rows have written and the logits of the next one: the logits, -inf where a token may not follow."""


def context_length(model: "TransformerBridge") -> int | None:
    """How many positions the model has; None where its configuration does not say."""
    return getattr(huggingface_model(model).config.get_text_config(), "max_position_embeddings", None)


def check_length(model: "TransformerBridge", n_tokens: int) -> None:
    """Refuse rows that the model has no positions for.

    Raises:
        ValueError: `n_tokens` is more than the model's context.
    """
    limit = context_length(model)
    if limit is not None and n_tokens > limit:
        raise ValueError(
            f"A row needs {n_tokens} tokens, but {model_name(model)!r} has a context of {limit}. "
            "Shorten the prompt or generate fewer tokens."
        )


def forward(model: "TransformerBridge", batch: TokenBatch, **options: Any) -> Any:
    """One Hugging Face forward of a padded batch, mask and positions always given, without cache.

    While it runs, `batch_in_flight` tells interventions which tokens are prompt and which completion.
    """
    check_length(model, int(batch.attention_mask.sum(-1).max()))
    with in_flight(batch), _attention_for_gradients(model, batch):
        return huggingface_model(model)(
            input_ids=batch.tokens,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
            **options,
        )


@contextlib.contextmanager
def in_flight(batch: TokenBatch) -> Iterator[None]:
    """Tell interventions which tokens of the forwards inside are prompt and which completion: all of them, cached ones too."""
    token = batch_in_flight.set(batch)
    try:
        yield
    finally:
        batch_in_flight.reset(token)


def _attention_for_gradients(model: "TransformerBridge", batch: TokenBatch) -> contextlib.AbstractContextManager:
    """Plain attention where torch's fused one takes gradients slowly and coarsely: in half precision on a CPU.

    Plain attention keeps [head pos pos] scores for every row and layer, so long rows keep to the fused one.
    """
    half_on_cpu = batch.tokens.device.type == "cpu" and huggingface_model(model).dtype != torch.float32
    if torch.is_grad_enabled() and half_on_cpu and batch.tokens.shape[1] <= PLAIN_ATTENTION:
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()


def completion_logits(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, "token d_vocab"]:
    """Logits at the positions that predict a completion token, row after row; computed nowhere else."""
    n_kept = batch.n_predicting
    predicting = batch.prediction_mask[:, -n_kept:]
    with head_at(model, predicting) as only_there:
        logits = forward(model, batch, logits_to_keep=n_kept).logits
    return (logits if only_there else logits[predicting]).float()


@contextlib.contextmanager
def head_at(model: "TransformerBridge", positions: Bool[Tensor, "batch kept"]) -> Iterator[bool]:
    """Give the head only the residuals at `positions`, out of those that logits_to_keep leaves; yields whether it does so.

    The output's logits are then [token d_vocab]. The residuals that transformers passes on are a slice in the middle of
    memory, for which torch copies the head's weights once a row of the batch. A small head, where this costs nothing, and
    one that hooks look at are left alone.
    """
    head = huggingface_model(model).get_output_embeddings()
    if head is None or head.weight.numel() < LARGE_HEAD or head._forward_hooks or head._forward_pre_hooks:
        yield False
        return
    handle = head.register_forward_pre_hook(lambda _module, inputs: (inputs[0][positions], *inputs[1:]))
    try:
        yield True
    finally:
        handle.remove()


def completion_logits_after(
    model: "TransformerBridge", prefix: list[int], batch: TokenBatch
) -> Float[Tensor, "token d_vocab"]:
    """`completion_logits` of rows that all continue `prefix`, which is run once for the whole batch.

    Rows are padded on the right, so that no gap comes between the prefix and a row.
    """
    check_length(model, len(prefix) + batch.tokens.shape[1])
    whole = _behind(batch.tokens.new_tensor(prefix), batch)
    cache = _filled_cache(model, run_on(model, whole.select(slice(1)), None, 0, len(prefix)))
    continue_rows(cache, torch.zeros(len(batch), dtype=torch.long, device=batch.tokens.device))
    n_kept = batch.n_predicting
    predicting = batch.prediction_mask[:, -n_kept:]
    with head_at(model, predicting) as only_there, in_flight(whole):
        logits = huggingface_model(model)(
            input_ids=batch.tokens,
            attention_mask=whole.attention_mask.long(),
            position_ids=batch.position_ids + len(prefix),
            **{NAME: cache},
            use_cache=True,
            logits_to_keep=n_kept,
        ).logits
    return (logits if only_there else logits[predicting]).float()


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

    A row draws its own randomness from (`seed`, its index), so it does not depend on its batch. The checkpoint's
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
    warnings.warn(f"Memory is out at {n_rows} rows ({reason}); goes on with {fewer} at a time.", stacklevel=3)
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
        cache, past, continued = _filled_cache(model, out), end + step, None
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


def begin(
    model: "TransformerBridge",
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]],
    rows_of_call: RowsOfCall | None = None,
) -> tuple[TokenBatch, Any, int]:
    """Left-padded rows, a cache of the tokens that all begin with if it pays, and their number: where `run_on` goes on.

    With a cache, the padding stands between the shared tokens and each row's own.
    """
    whole = pad_rows(model.tokenizer, prompts, completions, rows_of_call=rows_of_call).to(parameters_device(model))
    check_length(model, whole.tokens.shape[1])
    shared = min(shared_prefix(prompts), min(map(len, prompts)) - 1)
    n_parameters = huggingface_model(model).num_parameters()
    if len(prompts) == 1 or shared < min(SHARE_FROM, WORTH_SHARING / n_parameters):
        return whole, None, 0
    own = [prompt[shared:] for prompt in prompts]
    rest = pad_rows(model.tokenizer, own, completions, rows_of_call=rows_of_call).to(whole.tokens.device)
    behind_prefix = _behind(whole.tokens.new_tensor(prompts[0][:shared]), rest)
    cache = cache_of(run_on(model, behind_prefix.select(slice(1)), None, 0, shared))
    if cache is not None and (bool(whole.attention_mask.all()) or gaps_are_safe(cache, whole.tokens.shape[1])):
        return behind_prefix, cache, shared
    return whole, None, 0


def _behind(prefix: Int[Tensor, " shared"], batch: TokenBatch) -> TokenBatch:
    """The rows of a batch, each behind the same tokens."""
    return TokenBatch(
        torch.cat([prefix.expand(len(batch), -1), batch.tokens], dim=1),
        torch.nn.functional.pad(batch.attention_mask, (len(prefix), 0), value=True),
        torch.nn.functional.pad(batch.completion_mask, (len(prefix), 0), value=False),
        batch.rows,
    )


def run_prompts(model: "TransformerBridge", prompts: Sequence[list[int]]) -> tuple[TokenBatch, Any]:
    """Prompts in left-padded rows, what they begin with in common run once; the output has the last logits and the cache."""
    sequence, cache, past = begin(model, prompts, [[] for _ in prompts])
    rows = None if cache is None else torch.zeros(len(prompts), dtype=torch.long, device=sequence.tokens.device)
    return sequence, run_on(model, sequence, cache, past, sequence.tokens.shape[1], rows)


def run_on(
    model: "TransformerBridge", sequence: TokenBatch, cache: Any, past: int, end: int, continued: Tensor | None = None
) -> Any:
    """Run slots `past` to `end` of `sequence` behind a cache of those before, of whose rows these continue `continued`."""
    if continued is not None:
        continue_rows(cache, continued)
    with in_flight(sequence):
        return huggingface_model(model)(
            input_ids=sequence.tokens[:, past:end],
            attention_mask=sequence.attention_mask[:, :end].long(),
            position_ids=sequence.position_ids[:, past:end],
            **{NAME: cache},
            use_cache=True,
            logits_to_keep=1,
        )


def check_numbers(model: "TransformerBridge", logits: Float[Tensor, "... d_vocab"]) -> None:
    """Refuse logits that make no distribution.

    Raises:
        FloatingPointError: some are NaN or infinite.
    """
    if not logits.logsumexp(-1).isfinite().all():
        steered = "; and by ".join(steered_by(model))
        reason = f"It is steered by {steered}: lower the strength. If they are without it, its" if steered else "Its"
        raise FloatingPointError(
            f"The logits of {model_name(model)!r} are NaN or infinite. {reason} weights are damaged, or its activations are too "
            "large for their dtype: get the weights anew, or load them in bfloat16 or float32."
        )


def steered_by(model: "TransformerBridge") -> list[str]:
    """What steers the model at the moment, in words: the vectors, their layers and how long they are."""
    owners = (getattr(hook, "__self__", None) for hook in trunk(model)._forward_pre_hooks.values())
    return [owner.in_words() for owner in owners if owner is not None and hasattr(owner, "in_words")]


def _filled_cache(model: "TransformerBridge", output: Any) -> Any:
    cache, kind = cache_of(output), type(huggingface_model(model)).__name__
    if cache is None:
        raise ValueError(
            f"{model_name(model)!r} ({kind}) returns no {NAME}, and steerlens works with a cache. Recurrent models without one "
            "are not supported; use a transformer."
        )
    if not n_cached(cache):
        raise ValueError(
            f"The attention of {model_name(model)!r} ({kind}, {bridge_mode(model)}) leaves the cache empty, so that every token "
            "would be generated without those before it. TransformerLens 4.3's own attention does so from transformers 5.24 on. "
            "Load the model with steerlens.load_model or wrap_model, or run: pip install 'transformers<5.24'."
        )
    return cache


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
