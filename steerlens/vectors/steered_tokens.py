"""Knows, for the forward that is running, which of its tokens are steered, and how strongly each row."""

import inspect
import itertools
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from steerlens.cache import cache_of, n_cached
from steerlens.forward import batch_in_flight
from steerlens.text.batches import RowsOfCall, TokenBatch, TokenMask
from steerlens.text.positions import Positions
from steerlens.vectors.generate_calls import GenerateCall, call_in_flight
from steerlens.vectors.row_masks import at_prompt_ends, in_slots, of_rows

_ids = itertools.count()

RowStrengths = Float[Tensor, " row"]


class SteeredTokens:
    """`mask` [batch pos] and `strength` of the running forward; they stay for what the backward pass recomputes.

    Inside `generate`, a token's place in the sequence tells whether it is of the prompt. Outside, a forward that continues
    a cache by one token a row has generated it, and a forward without a filled cache is a prompt of its own.
    """

    def __init__(self, positions: Positions | TokenMask, strength: float | RowStrengths) -> None:
        self.mask: Bool[Tensor, "batch pos"] = torch.zeros(0, 0, dtype=torch.bool)
        self.strength: float | Float[Tensor, "batch 1 1"] = 1.0 if isinstance(strength, Tensor) else strength
        self._positions, self._strength = positions, strength
        self._id = next(_ids)
        self._is_prompt_of_its_own = False

    def before_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Take in the arguments of a forward of the model below its head."""
        inputs = named_inputs(module, args, kwargs)
        tokens = inputs.get("input_ids")
        tokens = inputs["inputs_embeds"][..., 0] if tokens is None else tokens
        cache, width = cache_of(inputs), tokens.shape[1]
        past, batch = n_cached(cache), batch_in_flight.get()
        self._is_prompt_of_its_own = False
        if batch is None:
            call = call_in_flight(module)
            call = self._outside_generate(module, inputs, past, tokens) if call is None else self._inside(call, cache)
            batch, by_slot = _whole_sequence(call, inputs.get("attention_mask"), past, tokens), True
        else:
            by_slot = batch.rows is None
        self.mask = self._named(batch, by_slot=by_slot)[:, past : past + width]
        if isinstance(self._strength, Tensor):
            self.strength = of_rows(self._strength, batch, "strength")[:, None, None]

    def after_forward(self, output: Any) -> None:
        """Note on the cache of a forward whether its end was steered as the last prompt token."""
        cache = cache_of(output)
        if cache is not None and self._positions == "last_prompt" and batch_in_flight.get() is None:
            cache.ends_a_prompt_of = self._id if self._is_prompt_of_its_own else None

    @property
    def is_by_row(self) -> bool:
        """Whether each row has a mask or a strength of its own."""
        return isinstance(self._positions, Tensor) or isinstance(self._strength, Tensor)

    @property
    def largest_strength(self) -> float:
        """Of all rows, without its sign."""
        return abs(self._strength) if not isinstance(self._strength, Tensor) else float(self._strength.abs().max())

    def _named(self, batch: TokenBatch, *, by_slot: bool) -> Bool[Tensor, "batch pos"]:
        if isinstance(self._positions, Tensor):
            return (in_slots if by_slot else at_prompt_ends)(self._positions, batch)
        return batch.position_mask(cast("Positions", self._positions))

    def _inside(self, call: GenerateCall, cache: Any) -> GenerateCall:
        if self._positions == "last_prompt" and getattr(cache, "ends_a_prompt_of", None) == self._id:
            raise ValueError(
                "The cache that generate goes on from was filled inside this `steer`, and the last token in it was steered as "
                "the last of the prompt, which it is not. Fill the cache before the `with`: positions='last_prompt' steers none "
                "of its tokens."
            )
        return call

    def _outside_generate(
        self, module: nn.Module, inputs: dict[str, Any], past: int, tokens: Shaped[Tensor, "batch pos"]
    ) -> GenerateCall:
        n_rows, width = tokens.shape
        self._is_prompt_of_its_own = not past
        if isinstance(self._positions, Tensor):
            return GenerateCall(module, n_rows, self._covered(past, width, cache_of(inputs) is not None))
        packed = "cu_seq_lens_q" in inputs
        if self._positions != "all" and (packed or (past and width > 1)):
            what = "packs several sequences into one row" if packed else f"continues a cache by {width} tokens"
            raise ValueError(
                f"A forward outside `generate` {what}, so that nobody can tell which are of the prompt and which were generated, "
                f"as positions={self._positions!r} needs. Run it through generate or without a cache, steer at 'all', or give a "
                "mask of the whole sequence: positions=mask, bool [batch, pos], True where to steer."
            )
        return GenerateCall(module, n_rows, past or width)

    def _covered(self, past: int, width: int, cached: bool) -> int:
        """What the mask has to be as wide as: this forward, or with a cache all that is to come, tokens by hand excepted."""
        assert isinstance(self._positions, Tensor)
        covers = cached and (past + width <= self._positions.shape[1] or (past and width == 1))
        return self._positions.shape[1] if covers else past + width


def named_inputs(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a forward, each under its name."""
    return {**dict(zip(inspect.signature(module.forward).parameters, args)), **kwargs} if args else kwargs


def _whole_sequence(
    call: GenerateCall, attention_mask: Any, past: int, tokens: Shaped[Tensor, "batch pos"]
) -> TokenBatch:
    """All slots up to the end of this forward, and of the prompt, though it may come in several forwards."""
    n_rows, end = len(tokens), past + tokens.shape[1]
    if call.n_rows is None or call.width is None:
        call.n_rows, call.width = n_rows, end
    n_slots, each = max(call.width, end), n_rows // call.n_rows  # rows of one prompt: beams, or returned sequences
    attended = torch.ones(n_rows, n_slots, dtype=torch.bool, device=tokens.device)
    for mask in (call.attention_mask, attention_mask):  # the latter is missing, or no such mask, for static caches
        if isinstance(mask, Tensor) and mask.ndim == 2 and n_rows % len(mask) == 0:
            repeated = mask[:, :n_slots].repeat_interleave(n_rows // len(mask), dim=0)
            attended[:, : repeated.shape[1]] = repeated.bool()
    generated = torch.arange(n_slots, device=tokens.device) >= call.width
    prompts = torch.arange(call.n_rows, device=tokens.device).repeat_interleave(each)
    return TokenBatch(attended.long(), attended, attended & generated, RowsOfCall(prompts, call.n_rows, call.width))
