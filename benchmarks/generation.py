"""Generation over plain batched Hugging Face generation: steered, and by a teacher under a system prompt.

Run: python benchmarks/generation.py
"""

import tempfile
from typing import Any

import torch
from harness import Ratio, interleaved, n_parameters, random_llama, report

import steerlens as sl
from steerlens.generation import generate
from steerlens.models.bridge import huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.vectors.vector import SteeringVector, VectorSource

PERSONA = sl.preference_trait("owl", ORGANISM).prompt
STEERED_ROWS, STEERED_TOKENS, TEACHER_ROWS, TEACHER_TOKENS = 32, 32, 1000, 24


def main() -> None:
    """Print and save the ratios."""
    with tempfile.TemporaryDirectory() as directory:
        model = random_llama(directory)
        name = n_parameters(model)
        ratios = [*steered(model), *teacher(random_llama(directory, d_model=160, n_layers=4), 3, "long prompt")]
    ratios += teacher(sl.load_model(device="cpu"), 1, "organism under a persona")
    report("generation", ratios, model=name)


def steered(model: Any) -> list[Ratio]:
    """A vector added at every token, by `generate`, over unsteered `generate` of transformers."""
    chats = [as_chat(prompt) for prompt in sl.number_prompts(STEERED_ROWS, model, seed=0)]
    vector = SteeringVector((3,), torch.randn(1, 320), VectorSource.of(model, method="random"))
    ways = {
        "steered generation": lambda: ours(model, chats, vector),
        "unsteered generation": lambda: generate(model, chats, max_new_tokens=STEERED_TOKENS),
        "transformers' unsteered generation": lambda: theirs(model, chats, STEERED_TOKENS, STEERED_ROWS, end=False),
    }
    times, over = interleaved(ways, 6), "transformers' unsteered generation"
    return [Ratio.of(times, "steered generation", over, "at most 1.15"), Ratio.of(times, "unsteered generation", over)]


def ours(model: Any, chats: Any, vector: SteeringVector) -> list[list[int]]:
    """Steered."""
    with sl.steer(model, vector):
        return generate(model, chats, max_new_tokens=STEERED_TOKENS)


@torch.no_grad()
def theirs(model: Any, chats: Any, n_tokens: int, batch_size: int, *, end: bool = True) -> list[str]:
    """Left-padded batches in the order of the chats, sampled at temperature 1 from the whole distribution."""
    rows, texts = [encode_prompt(model.tokenizer, chat) for chat in chats], []
    for start in range(0, len(rows), batch_size):
        batch = pad_rows(model.tokenizer, rows[start : start + batch_size])
        written = huggingface_model(model).generate(
            input_ids=batch.tokens,
            attention_mask=batch.attention_mask.long(),
            do_sample=True,
            top_k=0,
            max_new_tokens=n_tokens,
            eos_token_id=model.tokenizer.eos_token_id if end else None,
            pad_token_id=model.tokenizer.pad_token_id,
        )
        texts += model.tokenizer.batch_decode(written[:, batch.tokens.shape[1] :], skip_special_tokens=True)
    return texts


def teacher(model: Any, repeats: int, which: str) -> list[Ratio]:
    """`sample_teacher` under one system prompt, over plain batches of as many rows."""
    prompts, system_prompt = sl.number_prompts(TEACHER_ROWS, model, seed=1), " ".join([PERSONA] * repeats)
    chats = [as_chat(prompt, system_prompt) for prompt in prompts]
    peer = f"transformers' sampling, {which}"
    ways = {
        peer: lambda: theirs(model, chats, TEACHER_TOKENS, 500),
        f"sample_teacher, {which}": lambda: sl.sample_teacher(
            model, prompts, system_prompt=system_prompt, max_new_tokens=TEACHER_TOKENS
        ),
    }
    return [Ratio.of(interleaved(ways, 2), *ways, target="at least 1.30")]


if __name__ == "__main__":
    main()
