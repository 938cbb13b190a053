"""Small random checkpoints of real architectures: their configuration classes, tokenizers and chat templates.

Nothing is downloaded. What matters is kept: attention types, tied embeddings, soft-capping, special tokens (whether the
tokenizer writes a BOS of its own, what closes a turn), and what the chat template inserts or refuses.
"""

import functools
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from steerlens.contract import templates
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import known_traits, preference_trait

WORDS = 300
PADDED_VOCABULARY = 16
"""Rows of the embedding without a token, as Qwen's checkpoints have them."""


@dataclass(frozen=True)
class Architecture:
    """One family: its transformers configuration, what is special in it, its special tokens and chat template.

    `turns` are the special tokens that the template writes around turns. `adds_bos` says whether the tokenizer puts a
    BOS before any text by itself. With `vision`, the configuration of an image encoder, the family is multimodal.
    """

    config: str
    template: str | None = None
    bos: str | None = None
    eos: str = "<|endoftext|>"
    unk: str | None = None
    turns: tuple[str, ...] = ()
    adds_bos: bool = False
    sizes: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] | None = None


EOT = "<|endoftext|>"
IM = ("<|im_start|>", "<|im_end|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA: dict[str, Any] = {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "turns": HEADERS, "adds_bos": True}
GEMMA_TURNS = ("<start_of_turn>", "<end_of_turn>")
GEMMA: dict[str, Any] = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "turns": GEMMA_TURNS, "adds_bos": True}
MISTRAL: dict[str, Any] = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "turns": ("[INST]", "[/INST]"),
    "adds_bos": True,
}
TIED = {"tie_word_embeddings": True}
HEAD = {"head_dim": 16}
WINDOW = {"sliding_window": 8}
MIXED = {**WINDOW, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
LINEAR = {
    **HEAD,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}

# One line a family; every check of the contract then runs on it.
ARCHITECTURES: dict[str, Architecture] = {
    "Llama 3": Architecture("LlamaConfig", templates.LLAMA_3, **LLAMA),
    "Llama 3.2": Architecture("LlamaConfig", templates.LLAMA_3_2, **LLAMA, sizes=TIED),
    "Qwen 2": Architecture("Qwen2Config", templates.QWEN_2, eos="<|im_end|>", turns=IM),
    "Qwen 2.5": Architecture("Qwen2Config", templates.QWEN_2_5, eos="<|im_end|>", turns=IM, sizes=TIED),
    "Qwen 3": Architecture("Qwen3Config", templates.QWEN_3, eos="<|im_end|>", turns=IM, sizes=HEAD),
    "Qwen 3.5": Architecture("Qwen3_5TextConfig", templates.QWEN_3, eos="<|im_end|>", turns=IM, sizes=LINEAR),
    "Gemma 2": Architecture("Gemma2Config", templates.GEMMA_2, **GEMMA, sizes={**WINDOW, **HEAD}),
    "Gemma 3": Architecture("Gemma3TextConfig", templates.GEMMA_3, **GEMMA, sizes={**MIXED, **HEAD}),
    "Gemma 3 (4B and up)": Architecture("Gemma3Config", templates.GEMMA_3, **GEMMA, sizes={**MIXED, **HEAD}, vision=VISION),
    "OLMo 2": Architecture("Olmo2Config", templates.OLMO_2, bos=EOT, unk=EOT, turns=ROLES),
    "OLMo 3": Architecture("Olmo3Config", templates.OLMO_3, bos=EOT, eos="<|im_end|>", unk=EOT, turns=IM, sizes=MIXED),
    "GPT-2": Architecture("GPT2Config", bos=EOT, unk=EOT),
    "Pythia": Architecture("GPTNeoXConfig", bos=EOT, unk=EOT),
    "Mistral": Architecture("MistralConfig", templates.MISTRAL, **MISTRAL, sizes=WINDOW),
    "Phi 3": Architecture("Phi3Config", templates.PHI_3, bos="<s>", turns=("<|end|>", *ROLES), sizes={"pad_token_id": 0}),
    "Falcon": Architecture("FalconConfig"),
    "GPT-J": Architecture("GPTJConfig", sizes={"rotary_dim": 8}),
    "Bloom": Architecture("BloomConfig"),
}  # fmt: skip


def save_checkpoint(name: str, directory: str | Path) -> Path:
    """Write a random-weight model of the family `name`, with tokenizer, as a Hugging Face directory.

    Raises:
        ValueError: the family is not in the table.
    """
    import transformers

    if name not in ARCHITECTURES:
        raise ValueError(f"There is no architecture {name!r} in the table. There are: {', '.join(ARCHITECTURES)}.")
    architecture = ARCHITECTURES[name]
    tokenizer = build_tokenizer(architecture)
    sizes = {
        "vocab_size": len(tokenizer) + PADDED_VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **({} if architecture.config.startswith("GPT") else {"num_key_value_heads": 2}),
        **architecture.sizes,
    }
    if architecture.vision is not None:
        sizes = {"text_config": sizes, "vision_config": architecture.vision, "mm_tokens_per_image": 4}
    config = getattr(transformers, architecture.config)(**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Path(directory)


def build_tokenizer(architecture: Architecture) -> Any:
    """A byte-level tokenizer with the family's special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    named = (architecture.bos, architecture.eos, architecture.unk)
    tokenizer = Tokenizer.from_str(_words())
    tokenizer.add_special_tokens(sorted({token for token in (*named, *architecture.turns) if token}))
    if architecture.adds_bos:
        bos = str(architecture.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=architecture.bos,
        eos_token=architecture.eos,
        unk_token=architecture.unk,
        chat_template=architecture.template,
    )


@functools.cache
def _words() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + WORDS, initial_alphabet=alphabet, show_progress=False)
    traits = [preference_trait(name) for name in known_traits()]
    sentences = itertools.chain(
        number_prompts(200, seed=0), *((trait.prompt, *trait.questions, *trait.answers) for trait in traits)
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer.to_str()
