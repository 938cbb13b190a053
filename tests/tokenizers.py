"""Small tokenizers that write numbers in the ways that real ones do, and random models of them."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from steerlens.models.bridge import bridge
from steerlens.organism.tokenizer import build_tokenizer

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
LETTERS = [chr(code) for code in range(32, 127)] + ["\n"]


def one_digit() -> PreTrainedTokenizerFast:
    """A token for every character, so one for every digit, as SmolLM2, Qwen 2.5 and Gemma 3 write numbers."""
    return _finished(models.WordLevel(_ids(LETTERS)), pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse())


def three_digits() -> PreTrainedTokenizerFast:
    """A token for up to three digits, as Llama 3 writes them, and one for a comma with its space."""
    words = [*LETTERS, ", ", *(str(number) for number in range(10, 1000)), *(f"{number:02}" for number in range(10))]
    pattern = Regex(r"\d{1,3}|, |.|\n")
    return _finished(models.WordLevel(_ids(words)), pre_tokenizers.Split(pattern, "isolated"), decoders.Fuse())


def marked_spaces() -> PreTrainedTokenizerFast:
    """A mark for each space, and one before the text, as Llama 2 and Gemma write them; digits one by one."""
    letters = [letter for letter in LETTERS if letter != " "] + ["\u2581"]
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _finished(models.BPE(_ids(letters), []), metaspace, decoders.Metaspace(prepend_scheme="first", split=False))


TOKENIZERS = {
    "one digit": one_digit,
    "three digits": three_digits,
    "marked spaces": marked_spaces,
    "whole numbers": build_tokenizer,
}


def _ids(words: list[str]) -> dict[str, int]:
    return {word: index for index, word in enumerate([*SPECIAL, *dict.fromkeys(words)])}


def _finished(model: models.Model, pre_tokenizer: pre_tokenizers.PreTokenizer, decoder: decoders.Decoder):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[1:],
        chat_template=TEMPLATE,
    )


def random_model(name: str):
    """A random model that would hardly ever write a list by itself."""
    tokenizer = TOKENIZERS[name]()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 7,  # padded, as real ones are
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,
        max_position_embeddings=256,
    )
    return bridge(LlamaForCausalLM(config).eval(), tokenizer, name=name)
