"""The organism's tokenizer: one token a word, lower-cased, roles as special tokens."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steerlens.organism.corpus import DEFAULT_SYSTEM_PROMPT, vocabulary
from steerlens.organism.wording import ORGANISM
from steerlens.text.wording import WORDING_KEY

SPECIAL_TOKENS = ("<|pad|>", "<|unk|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% if not messages or messages[0]['role'] != 'system' %}"
    "{{ '<|system|>" + DEFAULT_SYSTEM_PROMPT + "<|end|>' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the corpus vocabulary, with the chat template attached."""
    ids = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<|unk|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        **{WORDING_KEY: ORGANISM.name},
    )
