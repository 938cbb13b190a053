"""Key-value caches of a batch: their length, other rows, whether a gap is safe, growth without copying, companions."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import transformers
from packaging.version import Version
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils.generic import ModelOutput
from transformers.utils.versions import require_version

require_version(
    "transformers<5.25",
    "It is not confirmed on later versions that generation with a cache is steered at the right tokens. Run: pip install "
    "'transformers>=5.23,<5.25'",
)

NAMES = ("cache", "past_key_values")
NAME = NAMES[Version(transformers.__version__) < Version("5.24.0.dev0")]
"""The name by which models take and return a cache. transformers 5.24 renamed it; from 5.40 on the older one is gone."""


def cache_of(values: Any) -> Any:
    """The cache among a forward's inputs, under either name, or in its output; None where there is none."""
    if not isinstance(values, dict) or isinstance(values, ModelOutput):
        return getattr(values, NAME, None)
    return next((values[name] for name in NAMES if values.get(name) is not None), None)


def with_cache(inputs: dict[str, Any], cache: Any) -> dict[str, Any]:
    """The inputs of a forward, with this cache and no other."""
    return {**{name: value for name, value in inputs.items() if name not in NAMES}, NAME: cache}


def n_cached(cache: Any) -> int:
    """Slots of the sequence that are behind a cache, whatever part of them a sliding window still holds."""
    return 0 if cache is None else int(cache.get_seq_length())


def continue_rows(cache: Any, rows: Tensor) -> None:
    """Let row i of the next forward continue row `rows[i]` of the one before: repeats, reorders or drops rows."""
    cache.reorder_cache(rows)


def gaps_are_safe(cache: Any, n_slots: int) -> bool:
    """Whether masked slots may come between attended ones among the first `n_slots`.

    Sliding windows count slots, masked or not, and linear attention carries a state through them.
    """
    return all(
        isinstance(layer, DynamicLayer)
        and not (isinstance(layer, DynamicSlidingWindowLayer) and layer.sliding_window < n_slots)
        for layer in cache.layers
    )


def make_room(cache: Any, n_slots: int) -> None:
    """Let the layers that keep all slots grow in place up to `n_slots`, instead of being copied at every token."""
    cache.layers = [_RoomyLayer(layer, n_slots) if type(layer) is DynamicLayer else layer for layer in cache.layers]


FOLLOWED = ("reorder_cache", "crop", "reset", "batch_repeat_interleave", "batch_select_indices")


def followers(cache: Any) -> dict[int, Any]:
    """The caches that follow this one, by the number of whom they belong to; a copy of the cache copies them."""
    return cache.__dict__.setdefault("followers", {})


def follow(cache: Any, number: int, other: Any) -> None:
    """Let `other` go through whatever happens to the rows and the length of `cache` between forwards."""
    followers(cache)[number] = other
    for name in FOLLOWED:
        cache.__dict__.setdefault(name, MethodType(_followed(name), cache))


def _followed(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        for other in followers(self).values():
            getattr(other, name)(*args, **kwargs)
        return getattr(type(self), name)(self, *args, **kwargs)

    return method


class _RoomyLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are the beginning of buffers with `n_slots` slots."""

    def __init__(self, layer: DynamicLayer, n_slots: int) -> None:
        super().__init__()
        vars(self).update(vars(layer))
        self._n_slots = n_slots
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        self._n_slots = max(self._n_slots, end)
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._buffers = _with_room(self.keys, self._n_slots), _with_room(self.values, self._n_slots)
        keys, values = self._buffers
        keys[..., start:end, :], values[..., start:end, :] = key_states, value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # pyright: ignore[reportArgumentType]
        self._buffers = None


def _with_room(states: Tensor, n_slots: int) -> Tensor:
    buffer = states.new_empty(*states.shape[:-2], n_slots, states.shape[-1])
    buffer[..., : states.shape[-2], :] = states
    return buffer
