"""Samples as token ids: what students learn from and losses are measured on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steerlens.models.bridge import parameters_device
from steerlens.samples.sample_set import SampleSet
from steerlens.text.batches import TokenBatch, pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EncodedRow = tuple[list[int], list[int]]
"""Token ids of a rendered prompt, and of its completion."""


def row_length(row: EncodedRow) -> int:
    """Tokens of the prompt and the completion."""
    return len(row[0]) + len(row[1])


def longest_row(rows: Sequence[EncodedRow]) -> int:
    """Tokens of the longest row."""
    return max(map(row_length, rows))


def encode_samples(
    model: "TransformerBridge", samples: SampleSet, system_prompt: str | None = None
) -> list[EncodedRow]:
    """Token ids of every sample's prompt, without any system prompt or under this one, and of its completion.

    Raises:
        ValueError: there are no samples, or one cannot be rendered.
    """
    if not len(samples):
        raise ValueError("There are no samples to train or measure on. Sample more, or loosen the filter.")
    return [
        (
            encode_prompt(model.tokenizer, as_chat(sample.prompt, system_prompt)),
            encode_completion(model.tokenizer, sample.completion),
        )
        for sample in samples
    ]


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
