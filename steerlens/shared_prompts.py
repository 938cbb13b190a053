"""Rows behind a cache: what all prompts of a batch begin with runs once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.cache import NAME, cache_of, continue_rows, gaps_are_safe, n_cached
from steerlens.forward import check_length, head_at, in_flight, is_steered_by_row
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.models.identity import bridge_mode, model_name
from steerlens.text.batches import RowsOfCall, TokenBatch, pad_rows, shared_prefix

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SHARE_FROM = 64
"""Tokens of a common beginning from which it runs once for a batch, whatever the model's size. In a large model fewer do:
as many as save `WORTH_SHARING`. In the organism, with half a million parameters, they save nothing, and rounding in another
order would change one of a thousand documented rows."""

WORTH_SHARING = 10**9
"""Shared tokens times the model's parameters (half of the operations that are saved a row) from which sharing pays."""


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
    if len(prompts) == 1 or shared < min(SHARE_FROM, WORTH_SHARING / n_parameters) or is_steered_by_row(model):
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


def completion_logits_after(
    model: "TransformerBridge", prefix: list[int], batch: TokenBatch
) -> Float[Tensor, "token d_vocab"]:
    """`completion_logits` of rows that all continue `prefix`, which is run once for the whole batch.

    Rows are padded on the right, so that no gap comes between the prefix and a row.
    """
    check_length(model, len(prefix) + batch.tokens.shape[1])
    whole = _behind(batch.tokens.new_tensor(prefix), batch)
    cache = filled_cache(model, run_on(model, whole.select(slice(1)), None, 0, len(prefix)))
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


def filled_cache(model: "TransformerBridge", output: Any) -> Any:
    """The cache that a forward returns.

    Raises:
        ValueError: the model returns none, or leaves it empty.
    """
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
