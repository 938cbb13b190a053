"""Samples as token ids: what students learn from and losses are measured on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from steerlens.models.bridge import parameters_device
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.batches import TokenBatch, pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt, end_of_turn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from steerlens.samples.rows import AuditRows

EncodedRow = tuple[list[int], list[int]]
"""Token ids of a rendered prompt, and of its completion."""


def row_length(row: EncodedRow) -> int:
    """Tokens of the prompt and the completion."""
    return len(row[0]) + len(row[1])


def longest_row(rows: Sequence[EncodedRow]) -> int:
    """Tokens of the longest row."""
    return max(map(row_length, rows))


def encode_samples(
    model: "TransformerBridge", samples: "SampleSet | AuditRows", system_prompt: str | None = None
) -> list[EncodedRow]:
    """Token ids of every sample's prompt, without any system prompt or under this one, and of its completion.

    Raises:
        ValueError: there are no samples, or one cannot be rendered.
    """
    if not len(samples):
        raise ValueError("There are no samples to train or measure on. Sample more, or loosen the filter.")
    return [encode_row(model.tokenizer, sample, system_prompt) for sample in samples]


def encode_row(tokenizer: Any, row: Sample, system_prompt: str | None = None) -> EncodedRow:
    """Token ids of one row's prompt and completion; a row that was cut off has no token that ends its turn.

    The tokens that were sampled are kept, where the row has them and the tokenizer reads them as its text.

    Raises:
        ValueError: the prompt cannot be rendered.
    """
    return encode_prompt(tokenizer, as_chat(row.prompt, system_prompt)), encode_answer(tokenizer, row)


def encode_answer(tokenizer: Any, row: Sample) -> list[int]:
    """Token ids of one row's completion, as in `encode_row`."""
    if row.tokens is not None and spell(tokenizer, row.tokens, row.completion):
        end = end_of_turn(tokenizer)
        return [*row.tokens, end] if row.finished and end is not None else list(row.tokens)
    return encode_completion(tokenizer, row.completion, finished=row.finished)


def spell(tokenizer: Any, tokens: Sequence[int], text: str) -> bool:
    """Whether tokens are this text in the tokenizer, which may be another than they were sampled with, and nothing beside it.

    A special token among them is none of the text: filters do not see it, and nobody is to learn it.
    """
    try:
        return tokenizer.decode(list(tokens), skip_special_tokens=False) == text
    except (OverflowError, TypeError, ValueError):
        return False


def pad_encoded(model: "TransformerBridge", rows: Sequence[EncodedRow]) -> TokenBatch:
    """One padded batch on the model's device."""
    batch = pad_rows(model.tokenizer, [row[0] for row in rows], [row[1] for row in rows])
    return batch.to(parameters_device(model))


def batches_by_length(
    model: "TransformerBridge", rows: Sequence[EncodedRow], batch_size: int
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Batches of rows of like length, so that little is padded, on the model's device; each with its rows' indices."""
    order = sorted(range(len(rows)), key=lambda i: row_length(rows[i]))
    for start in range(0, len(rows), batch_size):
        indices = order[start : start + batch_size]
        yield indices, pad_encoded(model, [rows[i] for i in indices])
