"""A contract: named claims about a model, each with a number that is measured and a bound that it has to keep."""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.models.unwrapping import weight_sharing_copy
from steerlens.text.batches import TokenBatch, pad_rows
from steerlens.text.chat import Chat, as_chat, encode_chat
from steerlens.text.context import ChatContextWarning
from steerlens.text.number_lists import number_prompts
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ROUNDING = {torch.float64: 1e-8, torch.float32: 5e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""Relative difference that rounding may make between two orders of the same sums."""

SHALLOW = 6
"""Blocks up to which the bounds above hold as they stand."""

ANSWERS = ("12 , 7 , 99", "5", "40 , 41 , 42 , 43 , 44", "8 , 16")


class CannotRun(Exception):
    """A check has nothing to say on this model or machine; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """A number next to its bound."""

    value: float
    bound: float
    note: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bound is kept; not-a-number keeps none."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass(frozen=True)
class Subject:
    """The model that is examined, on a few short rows of unequal length, and plain Hugging Face as its judge.

    A tokenizer without chat template gets one that joins texts as they are.
    """

    model: "TransformerBridge"
    adapter: Path | None = None

    def __post_init__(self) -> None:
        if self.model.tokenizer.chat_template is None:
            self.model.tokenizer.chat_template = PLAIN_TEXT_TEMPLATE

    @property
    def has_chat_template(self) -> bool:
        """Whether there is a template that knows roles."""
        return self.model.tokenizer.chat_template != PLAIN_TEXT_TEMPLATE

    @functools.cached_property
    def plain(self) -> Any:
        """The raw Hugging Face modules on the same weights; nothing of TransformerLens is in them."""
        return weight_sharing_copy(self.model).eval()

    @property
    def rounding(self) -> float:
        """The relative difference that the weights' dtype excuses; over many blocks it adds up as a random walk does."""
        return ROUNDING[huggingface_model(self.model).dtype] * max(1.0, self.model.cfg.n_layers / SHALLOW) ** 0.5

    @property
    def questions(self) -> list[str]:
        """Number tasks of unequal length."""
        return number_prompts(len(ANSWERS), self.model, seed=3)

    @functools.cached_property
    def chats(self) -> list[Chat]:
        """Questions with answers."""
        return [
            [*as_chat(question), {"role": "assistant", "content": answer}]
            for question, answer in zip(self.questions, ANSWERS, strict=True)
        ]

    @functools.cached_property
    def batch(self) -> TokenBatch:
        """The chats, padded on the left."""
        rows = [encode_chat(self.model.tokenizer, chat) for chat in self.chats]
        return pad_rows(self.model.tokenizer, *zip(*rows, strict=True)).to(parameters_device(self.model))

    def singles(self) -> Iterator[Int[Tensor, "1 pos"]]:
        """Token ids of every row, alone and without padding."""
        for tokens, mask in zip(self.batch.tokens, self.batch.attention_mask, strict=True):
            yield tokens[mask][None]

    def block(self, layer: int) -> torch.nn.Module:
        """The plain model's own block."""
        return self.plain.get_submodule(self.model.blocks[layer].name)


@dataclass(frozen=True)
class Check:
    """One claim. `measure` returns a number with its bound, or a fact in words, which nothing has to keep."""

    name: str
    claim: str
    measure: Callable[[Subject], Measurement | str]


@dataclass(frozen=True)
class Outcome:
    """What came of a check: it "holds" or "fails", it is a fact that is "noted", or it "cannot run"."""

    check: Check
    status: str
    measurement: Measurement | None
    note: str


def examine(subject: Subject, checks: Sequence[Check]) -> Iterator[Outcome]:
    """The outcome of every check, one after the other; none stops the others."""
    for check in checks:
        yield _outcome(subject, check)


def _outcome(subject: Subject, check: Check) -> Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChatContextWarning)  # the checks of the context say it in numbers
            result = check.measure(subject)
    except CannotRun as reason:
        return Outcome(check, "cannot run", None, str(reason))
    except (torch.OutOfMemoryError, MemoryError) as error:
        return Outcome(check, "cannot run", None, f"out of memory: {str(error).splitlines()[0]}")
    except Exception as error:
        return Outcome(check, "fails", None, f"{type(error).__name__}: {error}")
    if isinstance(result, str):
        return Outcome(check, "noted", None, result)
    return Outcome(check, "holds" if result.holds else "fails", result, result.note)


def largest_difference(one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"]) -> float:
    """max |a - b| / max |b|."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return float((one - other).abs().max() / other.abs().max())
