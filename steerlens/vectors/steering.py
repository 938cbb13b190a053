"""One `steer` while it is on: its edits, layer by layer, how large they are, and what it says of itself."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.models.bridge import trunk
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.text.batches import TokenMask
from steerlens.text.positions import Positions
from steerlens.vectors.edits import add, component, span
from steerlens.vectors.generate_calls import noticing_generate
from steerlens.vectors.lockstep import BaseResiduals, base_is_running
from steerlens.vectors.steered_tokens import RowStrengths, SteeredTokens
from steerlens.vectors.vector import SteeringVector
from steerlens.warn import warn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Mode = Literal["add", "project_out", "replace"]

MANY_LAYERS = 3
"""From so many layers on, vectors that were made layer by layer count the same effect again and again."""


class LayerEdit:
    """What is done to the residual after one block; an object, so that a copied model gets one of its own."""

    def __init__(
        self,
        mode: Mode,
        layer: int,
        directions: Float[Tensor, "vector d_model"],
        tokens: SteeredTokens,
        base: BaseResiduals | None,
    ) -> None:
        self._mode, self._layer, self._tokens, self._base = mode, layer, tokens, base
        self._directions = directions.sum(0) if mode == "add" else span(directions)
        self._residual_norm: Tensor | None = None

    def __call__(self, resid: Residual) -> Residual | None:
        """The residual with its steered tokens edited; None while it is the base that runs."""
        if self._base is not None and base_is_running.get():
            return None
        if self._residual_norm is None:
            self._residual_norm = resid.detach().float().norm(dim=-1).median()
        if self._directions.device != resid.device:
            with torch.inference_mode(False):  # a forward with gradients may follow
                self._directions = self._directions.to(resid.device)
        return torch.where(self._tokens.mask.to(resid.device)[..., None], self._edited(resid), resid)

    def _edited(self, resid: Residual) -> Residual:
        if self._mode == "add":
            return add(resid, (self._tokens.strength * self._directions).to(resid.dtype))
        units = self._directions.to(resid.dtype)
        if self._base is not None:
            return resid + component(self._base.residuals[self._layer] - resid, units)
        return resid - component(resid, units)

    @property
    def relative_norm(self) -> float:
        """Largest |strength v| over the median |h| of the first forward; NaN before it."""
        if self._residual_norm is None:
            return float("nan")
        return float(self._directions.norm()) * self._tokens.largest_strength / float(self._residual_norm)


class Steering:
    """The edits of one or several vectors."""

    def __init__(
        self,
        model: "TransformerBridge",
        vectors: Sequence[SteeringVector],
        mode: Mode,
        strength: float | RowStrengths,
        positions: Positions | TokenMask,
    ) -> None:
        self._vectors, self._mode = vectors, mode
        layers = tuple(sorted({layer for vector in vectors for layer in vector.layers}))
        self._tokens = SteeredTokens(positions, strength)
        self._base = BaseResiduals(model, layers) if mode == "replace" else None
        self._edits = {
            layer: LayerEdit(
                mode,
                layer,
                torch.cat([vector.at(layer).directions for vector in vectors if layer in vector.layers]),
                self._tokens,
                self._base,
            )
            for layer in layers
        }
        fitted_together = any("kl_explained" in vector.metrics.known for vector in vectors)
        self._may_be_too_much = mode == "add" and not fitted_together and len(layers) >= MANY_LAYERS

    @contextlib.contextmanager
    def on(self, model: "TransformerBridge") -> Iterator[None]:
        """Steer the model inside the `with`."""
        below_head = trunk(model)
        with contextlib.ExitStack() as stack:
            stack.enter_context(noticing_generate(model))
            stack.callback(below_head.register_forward_pre_hook(self.before_forward, with_kwargs=True).remove)
            stack.callback(below_head.register_forward_hook(self.after_forward).remove)
            stack.enter_context(watch_residuals(model, self._edits))
            yield

    def before_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Look at what is going to run; a forward pre-hook of the model below its head."""
        self._tokens.before_forward(module, args, kwargs)
        if self._base is not None:
            self._base.before_forward(module, args, kwargs)

    def after_forward(self, _module: nn.Module, _inputs: tuple, output: Any) -> None:
        """Note on the cache what it holds; a forward hook of the model below its head."""
        self._tokens.after_forward(output)
        if self._base is not None:
            self._base.after_forward(output)
        if self._may_be_too_much:
            self._may_be_too_much = False
            self._warn_of_too_much()

    @property
    def is_by_row(self) -> bool:
        """Whether rows may be steered at other tokens, or by another strength, than their neighbours."""
        return self._tokens.is_by_row

    def in_words(self) -> str:
        """What steers, and how far."""
        what = " and ".join(vector.source.words for vector in self._vectors)
        layers = ", ".join(map(str, self._edits))
        if self._mode != "add":
            return f"{what} ({self._mode}) at layers {layers}"
        return f"{what} at layers {layers}, {self._total:.3g} times as long as the residual"

    @property
    def _total(self) -> float:
        return sum(edit.relative_norm for edit in self._edits.values())

    def _warn_of_too_much(self) -> None:
        if self._total > 1:
            layers = tuple(self._edits)
            warn(
                f"Vectors are added at {len(layers)} layers at once, together {self._total:.1f} times as long as the residual. "
                "What one layer adds goes on through the next, so vectors that were made layer by layer count it many times, "
                "and the model may write no sense. Take one layer, such as "
                f"vector.at({layers[len(layers) // 2]}), or lower the strength."
            )
