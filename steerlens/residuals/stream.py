"""The residual stream's one door: attach functions to block outputs, and always detach them.

Everything that reads or writes residuals in steerlens goes through `watch_residuals`. The hooks sit on
the module `blocks.{l}.hook_out` with torch's own handles, so that no other hook on the same point is
ever removed with them, and they are taken off again however the block is left.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.models.bridge import check_layer, huggingface_model, parameters_device
from steerlens.models.replaced import forwards_replaced

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
            handles.append(point.register_forward_hook(functools.partial(_call, function), prepend=first))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _call(function: OnResidual, _module: nn.Module, _inputs: tuple, output: Residual) -> Residual | None:
    return function(output)


@contextlib.contextmanager
def resume_after(model: "TransformerBridge", layer: int, residual: Callable[[], Residual]) -> Iterator[None]:
    """Skip blocks 0..`layer` in every forward inside the `with`: block `layer` outputs `residual()` instead.

    The blocks are switched off by their instance's own `forward`, which leaves everything around them (masks,
    rotary tables, caches that are off) as it was.
    """
    blocks = [model.blocks[index].original_component for index in range(check_layer(model, layer) + 1)]
    output = block_output(model)

    def resume(*_args: object, **_kwargs: object) -> object:
        return output(residual())

    with forwards_replaced({**dict.fromkeys(blocks[:-1], _skipped(output)), blocks[-1]: resume}):
        yield


@contextlib.contextmanager
def stop_after(model: "TransformerBridge", layer: int) -> Iterator[None]:
    """Skip the blocks above `layer` in every forward inside the `with`, for residuals alone; logits mean nothing."""
    above = range(check_layer(model, layer) + 1, model.cfg.n_layers)
    skipped = _skipped(block_output(model))
    with forwards_replaced({model.blocks[index].original_component: skipped for index in above}):
        yield


@contextlib.contextmanager
def nothing_beyond(model: "TransformerBridge", layer: int, n_positions: int) -> Iterator[None]:
    """Compute no more than the output of block `layer` at the last `n_positions` needs; everything where a hook looks on."""
    if any(map(is_looked_at, model.modules())):
        yield
        return
    with stop_after(model, layer), mlp_on_end(model, layer, n_positions):
        yield


def is_looked_at(module: nn.Module) -> bool:
    """Whether a hook is on the module, other than those that transformers leaves after output_hidden_states=True, which rest."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(getattr(hook, "__module__", None) != "transformers.utils.output_capturing" for hook in hooks)


@contextlib.contextmanager
def mlp_on_end(model: "TransformerBridge", layer: int, n_positions: int) -> Iterator[None]:
    """Run the MLP of block `layer` on the last `n_positions` alone, where only these are read, there or above.

    Nothing behind a block's attention mixes positions, so what is read of this block is what it was. A block without a
    `mlp` that maps one tensor to one tensor runs as it is (Bloom's also takes the residual).
    """
    mlp: nn.Module | None = getattr(model.blocks[check_layer(model, layer)].original_component, "mlp", None)

    def end_only(hidden_states: Residual, *args: object, **kwargs: object) -> object:
        assert mlp is not None
        if any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return type(mlp).forward(mlp, hidden_states, *args, **kwargs)
        end = type(mlp).forward(mlp, hidden_states[:, -n_positions:].contiguous(), *args, **kwargs)
        if not isinstance(end, Tensor):
            return type(mlp).forward(mlp, hidden_states, *args, **kwargs)
        return nn.functional.pad(end, (0, 0, hidden_states.shape[1] - end.shape[1], 0))

    own_forward = mlp is None or "forward" in mlp.__dict__
    with forwards_replaced({} if own_forward else {mlp: end_only}):  # pyright: ignore[reportArgumentType]
        yield


BlockOutput = Callable[[Residual], object]


def _skipped(output: BlockOutput) -> Callable[..., object]:
    def forward(hidden_states: Residual, *_args: object, **_kwargs: object) -> object:
        return output(hidden_states)

    return forward


def block_output(model: "TransformerBridge") -> BlockOutput:
    """A residual in the form that the model's blocks return: alone, or in a tuple, as Falcon's and GPT-J's do.

    A forward of one token tells, once for each model.
    """
    hf, forms = huggingface_model(model), []
    if "blocks_return_tuples" not in hf.__dict__:
        block: nn.Module = model.blocks[0].original_component
        handle = block.register_forward_hook(lambda _module, _inputs, output: forms.append(isinstance(output, tuple)))
        try:
            with torch.no_grad():
                hf(input_ids=torch.zeros(1, 1, dtype=torch.long, device=parameters_device(model)), use_cache=False)
        finally:
            handle.remove()
        hf.__dict__["blocks_return_tuples"] = any(forms)
    return (lambda residual: (residual,)) if hf.__dict__["blocks_return_tuples"] else (lambda residual: residual)
