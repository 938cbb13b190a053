"""Edits of the residual stream, and the context manager that applies one at chosen tokens."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.cache import continue_rows
from steerlens.forward import batch_in_flight, rows_continued
from steerlens.models.adapters import adapter_disabled
from steerlens.models.bridge import huggingface_model
from steerlens.residuals.stream import OnResidual, Residual, watch_residuals
from steerlens.text.batches import TokenBatch
from steerlens.text.chat import chat_fingerprint
from steerlens.text.context import warn_on_other_context
from steerlens.text.positions import POSITIONS, Positions
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Mode = Literal["add", "project_out", "replace"]
Direction = Float[Tensor, " d_model"]

base_is_running: ContextVar[bool] = ContextVar("base_is_running", default=False)
"""While a base runs in lockstep, every "replace" is the identity: there, the model is its base."""


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
        positions: "all" tokens, the rendered "prompt", its last token ("last_prompt"), or the tokens that are
            "generated". A forward that continues a sequence, by a cache or by repeating it, generates.

    Warns:
        ChatContextWarning: the vector was made under another chat template.

    Raises:
        ValueError: unknown mode or positions, a vector of another model or a layer that the model lacks, or
            "replace" on a model without adapter.
    """
    if mode not in ("add", "project_out", "replace"):
        raise ValueError(f"mode={mode!r} is not known. Allowed: add, project_out, replace.")
    if positions not in POSITIONS:
        raise ValueError(f"positions={positions!r} is not known. Allowed: {', '.join(POSITIONS)}.")
    vector.check_model(model)
    if vector.source.chat_fingerprint is not None:
        warn_on_other_context(vector.source.chat_fingerprint, chat_fingerprint(model.tokenizer), "The vector")
    tracker = _PositionTracker(positions)
    base = _BaseResiduals(model, vector.layers) if mode == "replace" else None
    with contextlib.ExitStack() as stack:
        hf = huggingface_model(model)
        stack.callback(hf.register_forward_pre_hook(tracker.before_forward, with_kwargs=True).remove)
        if base is not None:
            stack.callback(hf.register_forward_pre_hook(base.before_forward, with_kwargs=True).remove)
        edits = {
            layer: _masked(_edit(mode, strength, layer, base), direction, tracker, base)
            for layer, direction in zip(vector.layers, vector.directions, strict=True)
        }
        stack.enter_context(watch_residuals(model, edits))
        yield


Edit = Callable[[Residual, Direction], Residual]


def _edit(mode: Mode, strength: float, layer: int, base: "_BaseResiduals | None") -> Edit:
    if mode == "add":
        return lambda resid, direction: add(resid, strength * direction)
    if mode == "project_out":
        return project_out
    assert base is not None
    return lambda resid, direction: replace(resid, direction, base.residuals[layer])


def _masked(edit: Edit, direction: Direction, tracker: "_PositionTracker", base: "_BaseResiduals | None") -> OnResidual:
    def apply(resid: Residual) -> Residual | None:
        if base is not None and base_is_running.get():
            return None
        edited = edit(resid, direction.to(resid))
        return torch.where(tracker.mask.to(resid.device)[..., None], edited, resid)

    return apply


class _PositionTracker:
    """Knows, for the forward that is running, which of its tokens are steered."""

    def __init__(self, positions: Positions) -> None:
        self.positions: Positions = positions
        self.mask: Bool[Tensor, "batch pos"] = torch.zeros(0, 0, dtype=torch.bool)
        self._prompt_tokens: Tensor | None = None
        self._prompt_length = 0

    def before_forward(self, _module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs["inputs_embeds"][..., 0]
        cache = kwargs.get("past_key_values")
        past = cache.get_seq_length() if cache is not None else 0
        batch = batch_in_flight.get()
        if batch is not None:
            self.mask = batch.position_mask(self.positions)[:, past : past + tokens.shape[1]]
            return
        if past == 0 and not self._repeats_prompt(tokens):
            self._prompt_tokens, self._prompt_length = tokens, tokens.shape[1]
        self.mask = self._mask(tokens, past, kwargs.get("attention_mask"))

    def _repeats_prompt(self, tokens: Tensor) -> bool:
        """Generation without a cache passes the prompt again, and more behind it."""
        prompt = self._prompt_tokens
        return (
            prompt is not None
            and tokens.shape[0] == prompt.shape[0]
            and tokens.shape[1] > prompt.shape[1]
            and torch.equal(tokens[:, : prompt.shape[1]], prompt)
        )

    def _mask(self, tokens: Tensor, past: int, attention_mask: Tensor | None) -> Bool[Tensor, "batch pos"]:
        """The mask of the whole sequence, of which this forward has the end."""
        n_rows, width = tokens.shape
        attended = torch.ones(n_rows, past + width, dtype=torch.bool, device=tokens.device)
        if attention_mask is not None and attention_mask.dim() == 2:
            attended = attention_mask[:, : past + width].bool()
        generated = torch.arange(past + width, device=tokens.device) >= self._prompt_length
        sequence = TokenBatch(attended.long(), attended, attended & generated)
        return sequence.position_mask(self.positions)[:, past:]


class _BaseResiduals:
    """The residuals of the model without its adapters, in lockstep, with a cache of its own."""

    def __init__(self, model: "TransformerBridge", layers: tuple[int, ...]) -> None:
        self.residuals: dict[int, Residual] = {}
        self._model, self._layers, self._cache = model, layers, None
        with adapter_disabled(model):
            pass

    @torch.no_grad()
    def before_forward(self, _module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if base_is_running.get():
            return
        cache = kwargs.get("past_key_values")
        if cache is None or cache.get_seq_length() == 0:
            self._cache = None
        rows = rows_continued.get()
        if self._cache is not None and rows is not None:
            continue_rows(self._cache, rows)
        token = base_is_running.set(True)
        record = {layer: self._keep(layer) for layer in self._layers}
        try:
            with adapter_disabled(self._model), watch_residuals(self._model, record):
                options = {**kwargs, "past_key_values": self._cache, "labels": None}
                self._cache = huggingface_model(self._model)(*args, **options).past_key_values
        finally:
            base_is_running.reset(token)

    def _keep(self, layer: int) -> OnResidual:
        def keep(resid: Residual) -> None:
            self.residuals[layer] = resid

        return keep
