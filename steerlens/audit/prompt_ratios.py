"""By how much a system prompt makes rows likelier."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.cost import Cost
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.samples.encoded import EncodedRow, pad_encoded, row_length
from steerlens.samples.sample_set import Sample
from steerlens.shared_prompts import completion_logits_after
from steerlens.text.batches import pad_rows, shared_prefix
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.token_losses import token_losses
from steerlens.vectors.objectives import token_log_probs

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ratios = Float[Tensor, "row candidate"]

ROWS_AT_ONCE = 64
LOGITS_AT_ONCE, BYTES_PER_LOGIT = 2**26, 8
"""Tokens times vocabulary of a batch, at most, each as the model gives it and in float32: 0.5 GB."""


def prompt_ratios(
    model: "TransformerBridge", rows: Sequence[Sample], completions: Sequence[list[int]], prompts: Sequence[str]
) -> Ratios:
    """log q(y | c, x) - log q(y | x) of every row under every prompt, in nats a row; `completions` are token ids."""
    under: list[Float[Tensor, " row"]] = []
    with tqdm(total=1 + len(prompts), desc="candidates", unit="prompt", leave=False) as progress:
        what = f"{len(rows):,} rows under each of {len(prompts)} prompts and under none"
        cost = Cost(progress, what, n_parts=1 + len(prompts), n_bytes=BYTES_PER_LOGIT * LOGITS_AT_ONCE)
        for prompt in (None, *prompts):
            contexts = [encode_prompt(model.tokenizer, as_chat(row.prompt, prompt)) for row in rows]
            under.append(row_log_likelihoods(model, list(zip(contexts, completions, strict=True))))
            progress.update()
            cost.after(len(under))
    return torch.stack(under[1:], dim=1) - under[0][:, None]


@torch.no_grad()
def row_log_likelihoods(model: "TransformerBridge", rows: Sequence[EncodedRow]) -> Float[Tensor, " row"]:
    """log q(y | x) of every row's completion, in nats; what the prompts of a batch begin with runs once."""
    values = torch.zeros(len(rows))
    d_vocab = huggingface_model(model).config.get_text_config().vocab_size
    order, start = sorted(range(len(rows)), key=lambda index: row_length(rows[index])), 0
    while start < len(order):
        longest = max(len(rows[index][1]) for index in order[start : start + ROWS_AT_ONCE])
        size = max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (longest * d_vocab)))
        indices = order[start : start + size]
        values[indices] = _batch_log_likelihoods(model, [rows[index] for index in indices], d_vocab)
        start += size
    return values


def _batch_log_likelihoods(
    model: "TransformerBridge", rows: Sequence[EncodedRow], d_vocab: int
) -> Float[Tensor, " row"]:
    prompts, completions = zip(*rows, strict=True)
    lengths = list(map(len, completions))
    shared = min(shared_prefix(prompts), min(map(len, prompts)) - 1)
    if shared > 0 and sum(lengths) * d_vocab <= LOGITS_AT_ONCE:
        own = pad_rows(model.tokenizer, [prompt[shared:] for prompt in prompts], completions, side="right")
        own = own.to(parameters_device(model))
        logits = completion_logits_after(model, prompts[0][:shared], own)
        tokens = token_log_probs(logits, own.tokens[own.completion_mask])
    else:
        tokens = -token_losses(model, pad_encoded(model, rows))
    return torch.stack([part.sum() for part in tokens.split(lengths)]).cpu()
