"""Notices a model's `generate`, so that every token inside it is known to be of the prompt or generated.

A forward alone does not tell: a prompt may come in chunks, or behind a cache that was filled before, and generation may
check several tokens at once, or repeat the prompt with each.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from steerlens.models.bridge import huggingface_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel


@dataclass
class GenerateCall:
    """One call: the shape of its prompts, padding included, and their mask.

    The shape is None until the first forward where the call was given texts.
    """

    trunk: nn.Module
    n_rows: int | None = None
    width: int | None = None
    attention_mask: Tensor | None = None


_running: ContextVar[tuple[GenerateCall, ...]] = ContextVar("generate_calls", default=())


def call_in_flight(trunk: nn.Module) -> GenerateCall | None:
    """The innermost running call that generates with the model of which this is all below the head."""
    return next((call for call in reversed(_running.get()) if call.trunk is trunk), None)


@contextlib.contextmanager
def noticing_generate(model: "TransformerBridge") -> Iterator[None]:
    """Let `call_in_flight` know of Hugging Face's `generate` and TransformerLens' own inside the `with`."""
    hf = huggingface_model(model)
    with _noticing(hf, hf), _noticing(model, hf):
        yield


@contextlib.contextmanager
def _noticing(owner: nn.Module, hf: "PreTrainedModel") -> Iterator[None]:
    noticed = owner.__dict__.get("generate")
    if not isinstance(noticed, _NoticedGenerate):
        noticed = _NoticedGenerate(owner, hf)
        owner.__dict__["generate"] = noticed  # past the attribute setting of bridges
    noticed.users += 1
    try:
        yield
    finally:
        noticed.users -= 1
        if not noticed.users:
            noticed.put_back(owner)


class _NoticedGenerate:
    """Stands in the place of an instance's `generate`; a copy of the model gets one of its own."""

    def __init__(self, owner: nn.Module, hf: "PreTrainedModel") -> None:
        self.users = 0
        self._hf, self._own = hf, owner.__dict__.get("generate")
        self._generate: Any = owner.generate
        functools.update_wrapper(self, self._generate)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self._generate, "__self__", None) is self._hf:
            kwargs.setdefault("disable_compile", True)  # a compiled forward would keep the first token's edits
        token = _running.set((*_running.get(), _call(self._hf.base_model, args, kwargs)))
        try:
            return self._generate(*args, **kwargs)
        finally:
            _running.reset(token)

    def put_back(self, owner: nn.Module) -> None:
        owner.__dict__.pop("generate", None)
        if self._own is not None:
            owner.__dict__["generate"] = self._own


def _call(trunk: nn.Module, args: tuple, kwargs: dict[str, Any]) -> GenerateCall:
    outer = call_in_flight(trunk)
    if outer is not None and getattr(kwargs.get("generation_config"), "is_assistant", False):
        return outer  # the model drafts its own next tokens
    names = ("inputs_embeds", "inputs", "input_ids", "input")
    prompts = next((given for given in (*map(kwargs.get, names), *args[:1]) if isinstance(given, Tensor)), None)
    if prompts is None or prompts.ndim < 2:
        return GenerateCall(trunk)
    mask = kwargs.get("attention_mask")
    n_masked = (
        mask.shape[1] if isinstance(mask, Tensor) else 0
    )  # more than the prompts where a cache holds their beginning
    return GenerateCall(trunk, len(prompts), max(prompts.shape[1], n_masked), mask)
