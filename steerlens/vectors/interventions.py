"""Edits of the residual stream, and the context manager that applies one at chosen tokens."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.models.bridge import huggingface_model
from steerlens.residuals.stream import Residual, watch_residuals
from steerlens.text.chat import chat_fingerprint
from steerlens.text.context import warn_on_other_context
from steerlens.text.positions import POSITIONS, Positions
from steerlens.vectors.generate_calls import noticing_generate
from steerlens.vectors.lockstep import BaseResiduals, base_is_running
from steerlens.vectors.steered_tokens import SteeredTokens
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Mode = Literal["add", "project_out", "replace"]
Direction = Float[Tensor, " d_model"]


def add(resid: Float[Tensor, "*batch d_model"], direction: Direction) -> Float[Tensor, "*batch d_model"]:
    """h + v."""
    return resid + direction


def project_out(resid: Float[Tensor, "*batch d_model"], direction: Direction) -> Float[Tensor, "*batch d_model"]:
    """h - <h, v_hat> v_hat: directional ablation (arXiv 2406.11717)."""
    unit = torch.nn.functional.normalize(direction, dim=-1)
    return resid - (resid @ unit)[..., None] * unit


def replace(
    resid: Float[Tensor, "*batch d_model"], direction: Direction, base: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """h + <h_base - h, v_hat> v_hat: the component along v taken from the base model instead.

    Unlike `project_out` it is the identity where the model is its base (arXiv 2606.00995, section 3.2).
    """
    unit = torch.nn.functional.normalize(direction, dim=-1)
    return resid + ((base - resid) @ unit)[..., None] * unit


@contextlib.contextmanager
def steer(
    model: "TransformerBridge",
    vector: SteeringVector,
    *,
    mode: Mode = "add",
    strength: float = 1.0,
    positions: Positions = "all",
) -> Iterator[None]:
    """Steer every forward inside the `with`, cached and batched generation included.

    Args:
        mode: "add" (h + strength v), "project_out", or "replace" with the component of the model whose peft
            adapters are switched off.
        strength: multiplies v in mode "add"; the other modes use the direction alone.
        positions: "all" tokens, the "prompt", its last token ("last_prompt"), or the tokens that are "generated".

    Every call of `generate`, steerlens', Hugging Face's or TransformerLens', has a prompt of its own: all that it is given,
    whether it comes at once, in chunks or behind a cache. In a chat that grows, what was generated in the turn before is of
    the prompt in the next. What a cache holds stays as it was when it was computed. Outside `generate`, a forward is a
    prompt of its own, and one that continues a cache by one token a row has generated it.

    Warns:
        ChatContextWarning: the vector was made under another chat template.

    Raises:
        ValueError: unknown mode or positions, a vector of another model or a layer that the model lacks, or
            "replace" on a model without adapter. In the `with`: a forward outside `generate` that continues a cache by
            several tokens, which may be of the prompt or generated.
    """
    if mode not in ("add", "project_out", "replace"):
        raise ValueError(f"mode={mode!r} is not known. Allowed: add, project_out, replace.")
    if positions not in POSITIONS:
        raise ValueError(f"positions={positions!r} is not known. Allowed: {', '.join(POSITIONS)}.")
    vector.check_model(model)
    if vector.source.chat_fingerprint is not None:
        warn_on_other_context(vector.source.chat_fingerprint, chat_fingerprint(model.tokenizer), "The vector")
    tokens = SteeredTokens(positions)
    base = BaseResiduals(model, vector.layers) if mode == "replace" else None
    with contextlib.ExitStack() as stack:
        hf = huggingface_model(model)
        stack.enter_context(noticing_generate(model))
        for watcher in filter(None, (tokens, base)):
            stack.callback(hf.register_forward_pre_hook(watcher.before_forward, with_kwargs=True).remove)
            stack.callback(hf.register_forward_hook(watcher.after_forward).remove)
        edits = {
            layer: LayerEdit(mode, layer, strength, direction, tokens, base)
            for layer, direction in zip(vector.layers, vector.directions, strict=True)
        }
        stack.enter_context(watch_residuals(model, edits))
        yield


class LayerEdit:
    """What is done to the residual after one block; an object, so that a copied model has a copy that is its own."""

    def __init__(
        self,
        mode: Mode,
        layer: int,
        strength: float,
        direction: Direction,
        tokens: SteeredTokens,
        base: BaseResiduals | None,
    ) -> None:
        self._mode, self._layer, self._strength, self._direction = mode, layer, strength, direction
        self._tokens, self._base = tokens, base

    def __call__(self, resid: Residual) -> Residual | None:
        """The residual with its steered tokens edited; None while it is the base that runs."""
        if self._base is not None and base_is_running.get():
            return None
        edited = self._edited(resid, self._direction.to(resid))
        return torch.where(self._tokens.mask.to(resid.device)[..., None], edited, resid)

    def _edited(self, resid: Residual, direction: Direction) -> Residual:
        if self._base is not None:
            return replace(resid, direction, self._base.residuals[self._layer])
        if self._mode == "project_out":
            return project_out(resid, direction)
        return add(resid, self._strength * direction)
