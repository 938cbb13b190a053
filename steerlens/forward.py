"""Run a model on token batches: one forward, and the one decode loop."""

import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.memory import OutOfMemory, is_out_of_memory
from steerlens.models import huggingface_model, model_name, parameters_device
from steerlens.prompts.chat import Chat, TokenBatch, encode_prompt, end_of_turn, pad_rows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

batch_in_flight: ContextVar[TokenBatch | None] = ContextVar("batch_in_flight", default=None)


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
    token = batch_in_flight.set(batch)
    try:
        return huggingface_model(model)(
            input_ids=batch.tokens,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
            use_cache=False,
            **options,
        )
    finally:
        batch_in_flight.reset(token)


def completion_logits(model: "TransformerBridge", batch: TokenBatch) -> Float[Tensor, "token d_vocab"]:
    """Logits at the positions that predict a completion token, row after row; computed nowhere else."""
    n_kept = batch.n_predicting
    return forward(model, batch, logits_to_keep=n_kept).logits[batch.prediction_mask[:, -n_kept:]].float()


def completion_logits_after(
    model: "TransformerBridge", prefix: list[int], batch: TokenBatch
) -> Float[Tensor, "token d_vocab"]:
    """`completion_logits` of rows that all continue `prefix`, which is run once for the whole batch.

    Rows are padded on the right, so that no gap comes between the prefix and a row.
    """
    check_length(model, len(prefix) + batch.tokens.shape[1])
    hf, n_rows = huggingface_model(model), len(batch)
    prefixes = batch.tokens.new_tensor([prefix])
    cache = _cache_of(model, hf(input_ids=prefixes, use_cache=True, logits_to_keep=1))
    if all(hasattr(layer, "batch_repeat_interleave") for layer in cache.layers):
        cache.batch_repeat_interleave(n_rows)
    else:  # the state of linear attention (Qwen 3.5) cannot be repeated
        prefixes = prefixes.expand(n_rows, -1)
        cache = _cache_of(model, hf(input_ids=prefixes, use_cache=True, logits_to_keep=1))
    n_kept = batch.n_predicting
    logits = hf(
        input_ids=batch.tokens,
        attention_mask=torch.nn.functional.pad(batch.attention_mask.long(), (len(prefix), 0), value=1),
        position_ids=batch.position_ids + len(prefix),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=n_kept,
    ).logits
    return logits[batch.prediction_mask[:, -n_kept:]].float()


@torch.no_grad()
def generate(
    model: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    first_row: int = 0,
    batch_size: int = 256,
) -> list[list[int]]:
    """Sample one completion for every chat, with a KV cache, in left-padded batches.

    Row i draws its own randomness from (`seed`, `first_row` + i), so it does not depend on its batch. The
    checkpoint's generation settings (top-k, repetition penalty) are not applied.

    Args:
        temperature: 0 takes the most likely token.
        first_row: index of the first chat in a larger run.

    Returns:
        Token ids of each completion, the token that ends it included where it was reached.

    Raises:
        ValueError: prompt and completion do not fit into the context, no chats are given, or the model has no cache.
        FloatingPointError: the model's logits are NaN or infinite.
        OutOfMemory: not even a row alone fits into memory; a batch that does not is halved.
    """
    if not chats:
        raise ValueError("generate got no chats. Give at least one.")
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    completions: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        uniform = np.stack([np.random.default_rng([seed, first_row + i]).random(max_new_tokens) for i in rows])
        decoded = _decode_in_memory(model, [prompts[i] for i in rows], torch.from_numpy(uniform), temperature)
        for i, completion in zip(rows, decoded, strict=True):
            completions[i] = completion
    return completions


def _decode_in_memory(
    model: "TransformerBridge", prompts: list[list[int]], uniform: Float[Tensor, "batch new"], temperature: float
) -> list[list[int]]:
    """`_decode`, in halves where memory does not do for the whole; rows do not depend on their batch."""
    try:
        return _decode(model, pad_rows(model.tokenizer, prompts), uniform, temperature)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(prompts) == 1:
            raise OutOfMemory(
                f"Memory is out for a single row of {len(prompts[0])} tokens and {uniform.shape[1]} new ones. Lower "
                "max_new_tokens, shorten the prompt, or load the weights in bfloat16."
            ) from error
        reason = (str(error) or "of the machine").splitlines()[0]
    half = len(prompts) // 2
    warnings.warn(f"Memory is out at {len(prompts)} rows ({reason}); goes on with {half} at a time.", stacklevel=3)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    parts = (slice(None, half), slice(half, None))
    return [row for part in parts for row in _decode_in_memory(model, prompts[part], uniform[part], temperature)]


def _decode(
    model: "TransformerBridge",
    batch: TokenBatch,
    uniform: Float[Tensor, "batch new"],
    temperature: float,
) -> list[list[int]]:
    n_rows, max_new_tokens = uniform.shape
    check_length(model, batch.tokens.shape[1] + max_new_tokens)
    hf, device = huggingface_model(model), parameters_device(model)
    batch, uniform = batch.to(device), uniform.to(device)
    mask, positions, tokens = batch.attention_mask.long(), batch.position_ids, batch.tokens
    ends = _end_tokens(model).to(device)
    finished = torch.zeros(n_rows, dtype=torch.bool, device=device)
    cache, steps = None, []
    for step in range(max_new_tokens):
        out = hf(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        cache = _cache_of(model, out)
        tokens = _draw(out.logits[:, -1], uniform[:, step], temperature)
        steps.append(torch.where(finished, -1, tokens))
        finished |= torch.isin(tokens, ends)
        if finished.all():
            break
        tokens = tokens[:, None]
        positions = positions[:, -1:] + 1
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    check_numbers(model, out.logits[:, -1])  # what is NaN once stays so, by way of the cache
    return [[token for token in row if token >= 0] for row in torch.stack(steps, dim=1).tolist()]


def check_numbers(model: "TransformerBridge", logits: Float[Tensor, "... d_vocab"]) -> None:
    """Refuse logits that make no distribution.

    Raises:
        FloatingPointError: some are NaN or infinite.
    """
    if not logits.logsumexp(-1).isfinite().all():
        raise FloatingPointError(
            f"The logits of {model_name(model)!r} are NaN or infinite. Its weights are damaged, or its activations are too "
            "large for their dtype: get the weights anew, or load them in bfloat16 or float32."
        )


def _cache_of(model: "TransformerBridge", output: Any) -> Any:
    if getattr(output, "past_key_values", None) is None:
        raise ValueError(
            f"{model_name(model)!r} ({type(huggingface_model(model)).__name__}) returns no past_key_values, and steerlens "
            "works with a cache. Recurrent models without one are not supported; use a transformer."
        )
    return output.past_key_values


def _draw(
    logits: Float[Tensor, "batch d_vocab"], uniform: Float[Tensor, " batch"], temperature: float
) -> Int[Tensor, " batch"]:
    """Inverse-CDF sampling: one uniform number a row fixes its token."""
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    threshold = uniform.double() * cumulative[:, -1]
    return torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def is_finished(model: "TransformerBridge", completion: Sequence[int]) -> bool:
    """Whether a generated completion came to its end, rather than to the limit of its length."""
    return bool(completion) and completion[-1] in _end_tokens(model).tolist()


def _end_tokens(model: "TransformerBridge") -> Int[Tensor, " end"]:
    configured = huggingface_model(model).generation_config
    ends = configured.eos_token_id if configured is not None else None
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    own = {model.tokenizer.eos_token_id, end_of_turn(model.tokenizer)} - {None}
    return torch.tensor(sorted({*ends, *own}), dtype=torch.long)
