"""The residual stream's one door: attach functions to block outputs, and always detach them.

Everything that reads or writes residuals in steerlens goes through `watch_residuals`. The hooks sit on
the module `blocks.{l}.hook_out` with torch's own handles, so that no other hook on the same point is
ever removed with them, and they are taken off again however the block is left.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.models import check_layer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Residual = Float[Tensor, "batch pos d_model"]
OnResidual = Callable[[Residual], Residual | None]


@contextlib.contextmanager
def watch_residuals(
    model: "TransformerBridge", functions: Mapping[int, OnResidual], *, first: bool = False
) -> Iterator[None]:
    """Call `functions[l]` with the output of block l in every forward inside the `with`.

    A function that returns a tensor replaces the residual, one that returns None leaves it.

    Args:
        first: run before the functions that are attached already, not after them.

    Raises:
        ValueError: a layer is out of range.
    """
    handles = []
    try:
        for layer, function in functions.items():
            point: nn.Module = model.blocks[check_layer(model, layer)].hook_out
            handles.append(point.register_forward_hook(_as_forward_hook(function), prepend=first))
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_watched(model: "TransformerBridge") -> bool:
    """Whether anything reads or edits the residual stream at the moment."""
    return any(block.hook_out._forward_hooks for block in model.blocks)


def _as_forward_hook(function: OnResidual) -> Callable[..., Residual | None]:
    def hook(_module: nn.Module, _inputs: tuple, output: Residual) -> Residual | None:
        return function(output)

    return hook


@contextlib.contextmanager
def resume_after(model: "TransformerBridge", layer: int, residual: Callable[[], Residual]) -> Iterator[None]:
    """Skip blocks 0..`layer` in every forward inside the `with`: block `layer` outputs `residual()` instead.

    The blocks are switched off by their instance's own `forward`, which leaves everything around them (masks,
    rotary tables, caches that are off) as it was.
    """
    blocks = [model.blocks[index].original_component for index in range(check_layer(model, layer) + 1)]

    def identity(hidden_states: Residual, *_args: object, **_kwargs: object) -> Residual:
        return hidden_states

    def resume(*_args: object, **_kwargs: object) -> Residual:
        return residual()

    try:
        for block in blocks[:-1]:
            block.__dict__["forward"] = identity
        blocks[-1].__dict__["forward"] = resume
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)
