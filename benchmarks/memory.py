"""Memory beside the weights: planned for models of 1, 8 and 70 billion parameters; planned and measured on a random one.

The random model has the shape of Llama 3.2 1B with half of its blocks, and a vocabulary of 262,144. Each verb is measured in a
process of its own (Linux).

Run: python benchmarks/memory.py
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from harness import own_peak, peak_memory, report
from transformers import LlamaConfig, LlamaForCausalLM

import steerlens as sl
from steerlens.gradients.row_gradients import row_gradients
from steerlens.memory import bytes_a_row, bytes_to_compare, bytes_to_differentiate
from steerlens.organism.tokenizer import build_tokenizer

SHAPES = {"1B": (2048, 16, 32, 8), "8B": (4096, 32, 32, 8), "70B": (8192, 80, 64, 8)}
"""Width, blocks, heads, and heads of keys and values."""

VOCABULARY, TOKENS, WRITTEN = 262_144, 64, 32
ROWS = {"fit": 8, "sample": 64, "gradients": 16}
PLANS: dict[str, Callable[[Any], int]] = {
    "fit": lambda model: bytes_to_differentiate(model, TOKENS) + bytes_to_compare(model, WRITTEN),
    "sample": lambda model: bytes_a_row(model, TOKENS),
    "gradients": lambda model: bytes_to_differentiate(model, TOKENS),
}
"""Bytes a row."""


def main() -> None:
    """Print and save the plans, and what the random model took."""
    plans = {name: planned(shape(*sizes, device="meta")) for name, sizes in SHAPES.items()}
    width, blocks, heads, shared = SHAPES["1B"]
    expected = planned(shape(width, blocks // 2, heads, shared, device="meta"))
    measured = {verb: round(peak_memory(__file__, verb) / 1000, 2) for verb in ROWS}
    report(
        "memory",
        [],
        **{f"planned, GB, {name}": plan for name, plan in plans.items()},
        **{"planned, GB, random model": expected, "measured, GB, random model": measured},
    )


def planned(model: LlamaForCausalLM) -> dict[str, float]:
    """Gigabytes of the weights, and beside them by verb."""
    found = {verb: ROWS[verb] * plan(model) / 1e9 for verb, plan in PLANS.items()}
    weights = sum(parameter.nbytes for parameter in model.parameters()) / 1e9
    return {name: round(size, 2) for name, size in {"weights": weights, **found}.items()}


def shape(
    width: int, blocks: int, heads: int, shared: int, *, device: str, vocabulary: int = VOCABULARY
) -> LlamaForCausalLM:
    """A Llama with tied embeddings, in bfloat16, whose weights are large enough for a prompt to have an effect."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads,
        num_key_value_heads=shared, intermediate_size=4 * width, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None, dtype=torch.bfloat16, initializer_range=1.3 / width**0.5,
    )  # fmt: skip
    with torch.device(device):
        return LlamaForCausalLM(config).bfloat16()


def run(verb: str) -> None:
    """Print by how much a verb raises the memory of the random model's process."""
    torch.manual_seed(0)
    width, blocks, heads, shared = SHAPES["1B"]
    model = sl.wrap_model(shape(width, blocks // 2, heads, shared, device="cpu"), build_tokenizer(), name="random")
    prompts = sl.number_prompts(40, model, seed=1)
    few = sl.FitConfig(n_train=8, n_validation=8, n_heldout=8, steps=2, batch_size=ROWS["fit"], max_new_tokens=WRITTEN)
    rows = [([*range(20, 20 + TOKENS - WRITTEN)], [*range(60, 60 + WRITTEN)])] * ROWS["gradients"]
    verbs: dict[str, Callable[[], Any]] = {
        "fit": lambda: sl.fit_prompt_vector(model, "you love owls .", layers=0, questions=prompts, config=few),
        "sample": lambda: sl.sample_teacher(model, (prompts * 2)[: ROWS["sample"]], max_new_tokens=WRITTEN),
        "gradients": lambda: row_gradients(model, rows, range(blocks // 2), positions="all"),
    }
    own_peak(verbs[verb])


if __name__ == "__main__":
    run(sys.argv[1]) if sys.argv[1:] else main()
