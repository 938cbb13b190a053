"""Tokens one by one: their text, and which of them are words or numbers."""

import functools
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

SPACE_MARKS = "\u2581\u0120"
"""What stands for a space in a token's own name: in SentencePiece, and in byte-level BPE."""


def token_text(tokenizer: Any, token: int) -> str:
    """A token's text, with the space that it begins with; its name in the vocabulary where it is no whole character."""
    text, name = tokenizer.decode([token]), str(tokenizer.convert_ids_to_tokens(token))
    if "\N{REPLACEMENT CHARACTER}" in text or not text:
        return name
    return f" {text}" if name[0] in SPACE_MARKS and not text.startswith(" ") else text


@functools.lru_cache(maxsize=8)
def word_tokens(tokenizer: Any, d_vocab: int) -> Int[Tensor, " token"]:
    """All tokens but special ones, among the first `d_vocab`."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= set(tokenizer.all_special_ids)
    return torch.tensor([token for token in range(min(len(tokenizer), d_vocab)) if token not in special])
