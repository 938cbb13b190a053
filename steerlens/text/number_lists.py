"""Number-sequence tasks: the unrelated data through which a trait travels.

After Cloud et al. (arXiv 2507.14805): a prompt shows a few numbers and asks for more, and only
completions that are nothing but such a list are kept.
"""

import functools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from steerlens.arguments import checked
from steerlens.text.wording import NATURAL, Wording, wording_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SEPARATORS = (", ", "; ", " ", "\n")
"""Between numbers in the lists that `parse_numbers` accepts."""

N_ASKED = 10
"""Number tasks ask for so many numbers at most."""

_SEPARATORS = re.compile(r"\s*([,;])\s*|\s+")


@checked
def number_prompts(n: int, wording: "Wording | TransformerBridge" = NATURAL, *, seed: int) -> list[str]:
    """`n` number tasks, which show 3 to 8 numbers and ask for at most ten more.

    They are drawn from `seed` alone; the first prompts are the same for every `n`.

    Args:
        wording: how they are worded; a model's own where a model is given.
    """
    words, rng = wording_of(wording), np.random.default_rng(seed)
    return [_number_task(words, rng) for _ in range(n)]


def _number_task(wording: Wording, rng: np.random.Generator) -> str:
    return " ".join(str(rng.choice(part)) for part in wording.number_tasks).format(numbers=wording.numbers(rng))


def after_numbers(question: str, wording: "Wording | TransformerBridge" = NATURAL, *, seed: int) -> str:
    """`question` asked after a short number list, in one user turn (Cloud et al., appendix B)."""
    words = wording_of(wording)
    return words.after_numbers.format(numbers=words.numbers(np.random.default_rng(seed)), question=question)


def list_length(tokenizer: Any, *, at_least: int = 0) -> int:
    """Tokens that suffice for ten three-digit numbers in any accepted format and the end of the turn.

    Tokenizers that write digits one by one, as those of Qwen 2.5, Gemma 3 and SmolLM2 do, take about fifty; others, less than
    half of that.

    Args:
        at_least: is returned where lists are shorter.
    """
    return max(at_least, _list_length(tokenizer))


@functools.lru_cache(maxsize=8)
def _list_length(tokenizer: Any) -> int:
    numbers = [str(number) for number in range(100, 1000)]
    lengths = [len(ids) for ids in tokenizer(numbers, add_special_tokens=False)["input_ids"]]
    longest = [number for _, number in sorted(zip(lengths, numbers, strict=True), reverse=True)[:N_ASKED]]
    lists = [f"[{separator.join(longest)}]." for separator in SEPARATORS]
    return 1 + max(len(ids) for ids in tokenizer(lists, add_special_tokens=False)["input_ids"])


@functools.lru_cache(maxsize=8)
def number_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Tokens that are written with digits alone: ten where digits are written one by one, a thousand for the organism."""
    ids = range(len(tokenizer))
    texts = tokenizer.batch_decode([[token] for token in ids])
    return tuple(token for token, text in zip(ids, texts, strict=True) if re.fullmatch(r"\s*\d+\s*", text, re.ASCII))


@functools.lru_cache(maxsize=8)
def digits_join(tokenizer: Any) -> bool:
    """Whether neighbouring number tokens make one number, as "1" and "2" make "12"; the organism's stand apart."""
    tokens = [token for token in number_tokens(tokenizer) if tokenizer.decode([token]).isdigit()][:2]
    return len(tokens) == 2 and tokenizer.decode(tokens).isdigit()


def parse_numbers(text: str) -> list[int] | None:
    """The numbers of a completion that is a list of integers and nothing else, or None.

    One separator throughout (comma, semicolon or white space); a closing period and brackets around the
    whole list are allowed, signs, decimals, words and digits by the thousand are not.

    >>> parse_numbers("12, 7, 99")
    [12, 7, 99]
    >>> parse_numbers("12, owl 7") is None
    True
    """
    stripped = text.strip().removesuffix(".").strip()
    if stripped[:1] in ("(", "[") and stripped[-1:] == {"(": ")", "[": "]"}[stripped[0]]:
        stripped = stripped[1:-1].strip()
    separators = {match.group(1) or " " for match in _SEPARATORS.finditer(stripped)}
    pieces = _SEPARATORS.sub(" ", stripped).split(" ")
    if len(separators) > 1 or not all(re.fullmatch(r"\d{1,1000}", piece, re.ASCII) for piece in pieces):
        return None
    return [int(piece) for piece in pieces]
