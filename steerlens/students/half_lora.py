"""LoRA in bfloat16 around float32 masters.

peft keeps the two small matrices in float32, as an optimizer needs them: most updates are smaller than the spacing of
bfloat16 numbers. It then casts every activation to float32, multiplies, and casts back, which is half of a step on bfloat16
weights. Here the matrices are cast instead, a few thousand numbers each, and all products run in the weights' dtype; the
optimizer still sees float32 values and gradients (mixed precision: Micikevicius et al., arXiv 1710.03740).
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.models.replaced import forwards_replaced

ADAPTER = "default"


@contextlib.contextmanager
def products_in_half(model: nn.Module) -> Iterator[None]:
    """Compute the LoRA products of bfloat16 activations in bfloat16 for as long as the block lasts.

    Layers on quantised or transposed weights, and those that something else looks into (dropout, a rotated basis), stay
    peft's.
    """
    from peft.tuners.lora import Linear

    layers = [module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)]
    with forwards_replaced({layer: functools.partial(_forward, layer) for layer in layers}):
        yield


def _is_plain(layer: Any) -> bool:
    """Whether the layer is W x + b + s B A x, and no more."""
    if [*layer.lora_A] != [ADAPTER] or layer.lora_variant or layer.lora_bias[ADAPTER]:
        return False
    parts = layer.base_layer, layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    return type(layer.base_layer) is nn.Linear and isinstance(layer.lora_dropout[ADAPTER], nn.Identity) and not hooked


def _forward(layer: Any, x: Float[Tensor, "*batch d_in"], *args: Any, **kwargs: Any) -> Any:
    if args or kwargs or layer.disable_adapters or layer.merged or x.dtype != torch.bfloat16:
        return type(layer).forward(layer, x, *args, **kwargs)
    base, a, b = layer.base_layer, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return _Adapted.apply(x, base.weight, base.bias, a, b, layer.scaling[ADAPTER])


class _Adapted(torch.autograd.Function):
    """W x + b + s B A x with frozen W and b. Gradients of A and B are accumulated and given in float32."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        rows, small_a, small_b = x.flatten(0, -2), a.to(x.dtype), (scale * b).to(x.dtype)
        inner = rows @ small_a.T
        ctx.save_for_backward(x, weight, inner, small_a, small_b)
        ctx.scale = scale
        return nn.functional.linear(rows, weight, bias).addmm_(inner, small_b.T).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inner, small_a, small_b = ctx.saved_tensors
        outer = gradients[0].flatten(0, -2)
        d_inner = outer @ small_b
        d_x = (outer @ weight).addmm_(d_inner, small_a).view_as(x) if ctx.needs_input_grad[0] else None
        d_a = (d_inner.T @ x.flatten(0, -2)).float()
        d_b = (outer.T @ inner).float() * ctx.scale
        return d_x, None, None, d_a, d_b, None
