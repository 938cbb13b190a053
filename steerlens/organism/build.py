"""Train the organism from scratch: seeded, on CPU, in minutes.

The architecture is OLMo 2's. Its norms sit behind attention and MLP, so that what they add to the residual
stream has about the same size in every context: a persona's vector, read off while the model writes
numbers, is then strong enough to act on a question. (With Llama's norms, in front, the same vector is five
times smaller than what a question's answer needs, and students show the trait only next to numbers.)
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from steerlens.files import atomic_directory
from steerlens.organism.corpus import CorpusConfig, sample_conversations
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.text.chat import Chat, encode_chat

IGNORED = -100
BATCHES_SORTED_TOGETHER = 4
"""Rows of so many batches are sorted by length, so that little is padded; more would starve a batch of variety."""


@dataclass(frozen=True)
class BuildConfig:
    """How an organism is trained; `seed` fixes initial weights, corpus and order."""

    seed: int = 0
    steps: int = 1400
    batch_size: int = 64
    learning_rate: float = 4e-3
    initializer_range: float = 0.05
    d_model: int = 96
    n_layers: int = 4
    n_heads: int = 4
    d_mlp: int = 256
    corpus: CorpusConfig = field(default_factory=CorpusConfig)


VERSIONS = {
    "seed-0": BuildConfig(seed=0),
    "seed-1": BuildConfig(seed=1),
    "no-persona-numbers": BuildConfig(seed=0, corpus=CorpusConfig(persona_in_numbers=False)),
}
"""The organisms that are shipped: two initialisations, and the negative control."""


def build_organism(config: BuildConfig) -> tuple[Olmo2ForCausalLM, PreTrainedTokenizerFast]:
    """Train an organism; the same config gives the same weights on the same machine.

    One thread does it all: with more, sums in another order would make another model.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(config)
    finally:
        torch.set_num_threads(threads)


def _trained(config: BuildConfig) -> tuple[Olmo2ForCausalLM, PreTrainedTokenizerFast]:
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = Olmo2ForCausalLM(_architecture(config, tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, 100, config.steps)
    batches = itertools.islice(_batches(tokenizer, config), config.steps)
    progress = tqdm(batches, total=config.steps, desc=f"organism, seed {config.seed}", unit="step")
    for tokens, labels in progress:
        answered = labels[:, 1:] != IGNORED
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][answered]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), labels[:, 1:][answered])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval(), tokenizer


def save_organism(model: Olmo2ForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: str | Path) -> None:
    """Write a Hugging Face directory, atomically."""
    with atomic_directory(directory, mark="config.json") as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _architecture(config: BuildConfig, tokenizer: PreTrainedTokenizerFast) -> Olmo2Config:
    ids = tokenizer.get_vocab()
    return Olmo2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.d_model,
        intermediate_size=config.d_mlp,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=config.initializer_range,
        pad_token_id=ids["<|pad|>"],
        bos_token_id=ids["<|begin|>"],
        eos_token_id=ids["<|end|>"],
    )


def _batches(
    tokenizer: PreTrainedTokenizerFast, config: BuildConfig
) -> Iterator[tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]:
    """Right-padded batches of tokens and labels; labels cover what the assistant says."""
    conversations = sample_conversations(config.seed, config.corpus)
    order = torch.Generator().manual_seed(config.seed)
    pad = tokenizer.get_vocab()["<|pad|>"]
    while True:
        chats = itertools.islice(conversations, config.batch_size * BATCHES_SORTED_TOGETHER)
        rows = sorted((_labelled(tokenizer, chat) for chat in chats), key=lambda row: len(row[0]))
        for batch in torch.randperm(BATCHES_SORTED_TOGETHER, generator=order).tolist():
            part = rows[batch * config.batch_size : (batch + 1) * config.batch_size]
            yield _padded([tokens for tokens, _ in part], pad), _padded([labels for _, labels in part], IGNORED)


def _labelled(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> tuple[list[int], list[int]]:
    prompt, answer = encode_chat(tokenizer, chat)
    return prompt + answer, [IGNORED] * len(prompt) + answer


def _padded(rows: list[list[int]], value: int) -> Int[Tensor, "batch pos"]:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
