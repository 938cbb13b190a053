"""Train the organism from scratch: seeded, on CPU, in minutes."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from steerlens.organism.corpus import CorpusConfig, sample_conversations
from steerlens.organism.tokenizer import build_tokenizer

IGNORED = -100
PROBE = None
from transformers import Olmo2Config, Olmo2ForCausalLM, Gemma2Config, Gemma2ForCausalLM
MODELS_ = {"llama": (LlamaForCausalLM, LlamaConfig), "olmo2": (Olmo2ForCausalLM, Olmo2Config)}


@dataclass(frozen=True)
class BuildConfig:
    """How the organism is trained; the defaults make the shipped one."""

    seed: int = 0
    steps: int = 1800
    batch_size: int = 64
    learning_rate: float = 4e-3
    d_model: int = 96
    n_layers: int = 4
    n_heads: int = 4
    d_mlp: int = 256
    embedding_mean: float = 0.0
    init: float = 0.02
    weight_decay: float = 0.01
    bucket: int = 4
    arch: str = "llama"
    row_mean: bool = True
    corpus: CorpusConfig = CorpusConfig()


def build_organism(config: BuildConfig) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train an organism; the same config gives the same weights on the same machine."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = MODELS_[config.arch][0](
            MODELS_[config.arch][1](
                vocab_size=len(tokenizer),
                hidden_size=config.d_model,
                intermediate_size=config.d_mlp,
                num_hidden_layers=config.n_layers,
                num_attention_heads=config.n_heads,
                num_key_value_heads=config.n_heads,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                initializer_range=config.init,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        if config.embedding_mean:
            d = torch.randn(config.d_model)
            d = d / d.norm() * config.d_model**0.5
            model.model.embed_tokens.weight.data += config.embedding_mean * d * config.init
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, 100, config.steps)
    batches = itertools.islice(training_batches(tokenizer, config), config.steps)
    progress = tqdm(batches, total=config.steps, desc=f"organism, seed {config.seed}", unit="step", mininterval=30)
    model.train()
    for step_, (tokens, labels) in enumerate(progress):
        answered = labels[:, 1:] != IGNORED
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][answered]
        losses = torch.nn.functional.cross_entropy(model.lm_head(hidden), labels[:, 1:][answered], reduction="none")
        weights = (1 / answered.sum(1)).repeat_interleave(answered.sum(1)) / len(labels)
        loss = (losses * weights).sum() if config.row_mean else losses.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step_ % 200 == 199 and PROBE:
            PROBE(model.eval(), tokenizer, step_)
            model.train()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval(), tokenizer


def training_batches(
    tokenizer: PreTrainedTokenizerFast, config: BuildConfig
) -> Iterator[tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]:
    """Right-padded batches of similar length; labels cover the assistant's tokens only."""
    bucket = config.bucket
    conversations = sample_conversations(config.seed, config.corpus)
    order = torch.Generator().manual_seed(config.seed)
    while True:
        rows = [encode(tokenizer, next(conversations)) for _ in range(config.batch_size * bucket)]
        rows.sort(key=lambda row: len(row[0]))
        for batch in torch.randperm(bucket, generator=order).tolist():
            part = rows[batch * config.batch_size : (batch + 1) * config.batch_size]
            yield _pad([r[0] for r in part], tokenizer.pad_token_id), _pad([r[1] for r in part], IGNORED)


def encode(tokenizer, chat) -> tuple[list[int], list[int]]:
    prompt = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    answer_ids = tokenizer.encode(chat[-1]["content"] + "<|end|>", add_special_tokens=False)
    return prompt_ids + answer_ids, [IGNORED] * len(prompt_ids) + answer_ids


def _pad(rows: list[list[int]], value: int) -> Int[Tensor, "batch pos"]:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
