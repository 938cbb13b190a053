"""LoRA in a rotated basis of the residual stream: the same function, other coordinates.

With R a random orthogonal matrix of the residual's width, every LoRA matrix A that reads a vector of that width is
stored as A R^T and used as (A R^T)(R x), every B that writes one is stored as R B and used as R^T((R B) y). The model
computes what it did before, and so does every step of an optimizer that does not care for the basis: SGD, with or
without momentum, normalised or clipped by the norm, gives the same student. Adam, RMSProp and SignSGD act on single
coordinates and do not.

The paper's code (arXiv 2606.00995, section 6.3) rotates the basis of the MLP maps alone; here it is every LoRA factor
that touches the residual stream, which needs no knowledge of the architecture. Maps inside a block (per head, inside
the MLP) keep their basis where their width differs from the residual's.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def haar_orthogonal(width: int, seed: int) -> Float[Tensor, "width width"]:
    """A matrix drawn uniformly from the orthogonal group: Q of a Gaussian's QR, with R's diagonal made positive.

    Without the signs Q is not uniform, as LAPACK fixes them. The determinant is 1 or -1, each half of the time.

    Reference: Mezzadri 2007, arXiv math-ph/0609050.
    """
    gaussian = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()


class RotatedBasis:
    """Stores a student's LoRA matrices in a rotated basis until `end`.

    Raises:
        ValueError: no LoRA matrix reads or writes vectors of the residual's width.
    """

    def __init__(self, model: nn.Module, width: int, seed: int) -> None:
        self._rotation = haar_orthogonal(width, seed)
        self._readers = [a for a, _ in _lora_pairs(model) if a.in_features == width]
        self._writers = [b for _, b in _lora_pairs(model) if b.out_features == width]
        if not self._readers and not self._writers:
            raise ValueError(
                f"rotation_seed={seed} rotates nothing: no LoRA matrix reads or writes the residual stream "
                f"(d_model={width}). Choose other target_modules, or leave rotation_seed out."
            )
        self._set(self._rotation)
        first = (self._readers or self._writers)[0].weight
        turn = self._rotation.to(first)  # x R^T is R x, with x a row

        def read(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (inputs[0] @ turn.T,)

        def write(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
            return output @ turn

        self._handles = [
            *(module.register_forward_pre_hook(read) for module in self._readers),
            *(module.register_forward_hook(write) for module in self._writers),
        ]

    @contextlib.contextmanager
    def plain(self) -> Iterator[None]:
        """Have the matrices in the model's own basis for as long as the block lasts, for saving."""
        stored = [module.weight.detach().clone() for module in [*self._readers, *self._writers]]
        self._set(self._rotation.T)
        try:
            yield
        finally:
            for module, weight in zip([*self._readers, *self._writers], stored, strict=True):
                module.weight.data.copy_(weight)

    def end(self) -> None:
        """Put the matrices back into the model's own basis for good."""
        for handle in self._handles:
            handle.remove()
        self._set(self._rotation.T)

    def _set(self, rotation: Float[Tensor, "width width"]) -> None:
        """A <- A rotation^T and B <- rotation B, computed in float64."""
        rotation = rotation.to(self._readers[0].weight.device if self._readers else self._writers[0].weight.device)
        for module in self._readers:
            module.weight.data.copy_(module.weight.double() @ rotation.T)
        for module in self._writers:
            module.weight.data.copy_(rotation @ module.weight.double())


def _lora_pairs(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [
        (a, layer.lora_B[name])
        for layer in layers
        for name, a in layer.lora_A.items()
        if isinstance(a, nn.Linear) and isinstance(layer.lora_B[name], nn.Linear)
    ]
