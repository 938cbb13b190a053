"""The base model's residuals beside those of the model with its adapter, forward by forward."""

import copy
import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from steerlens.cache import cache_of, follow, followers, n_cached, with_cache
from steerlens.models.adapters import adapter_disabled
from steerlens.residuals.stream import OnResidual, Residual, watch_residuals
from steerlens.vectors.steered_tokens import named_inputs

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

base_is_running: ContextVar[bool] = ContextVar("base_is_running", default=False)
"""While a base runs in lockstep, every "replace" is the identity: there, the model is its base."""

_ids = itertools.count()


class BaseResiduals:
    """The residuals of the model without its adapters, in lockstep.

    Behind every cache of the model, the base has one of its own, of the same kind. It travels with the model's: it is
    copied, cut and reordered with it.

    Raises:
        ValueError: the model has no adapter.
    """

    def __init__(self, model: "TransformerBridge", layers: tuple[int, ...]) -> None:
        self.residuals: dict[int, Residual] = {}
        self._model, self._layers, self._id, self._cache = model, layers, next(_ids), None
        with adapter_disabled(model):
            pass

    @torch.no_grad()
    def before_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Run the base, below its head, on the arguments of a forward."""
        if base_is_running.get():
            return
        token = base_is_running.set(True)
        record = {layer: self._keep(layer) for layer in self._layers}
        try:
            with adapter_disabled(self._model), watch_residuals(self._model, record):
                inputs = named_inputs(module, args, kwargs)
                self._cache = cache_of(module(**with_cache(inputs, self._cache_beside(cache_of(inputs)))))
        finally:
            base_is_running.reset(token)

    def after_forward(self, output: Any) -> None:
        """Let the base's cache go with the model's."""
        cache = cache_of(output)
        if not base_is_running.get() and cache is not None:
            follow(cache, self._id, self._cache)

    def _cache_beside(self, cache: Any) -> Any:
        if cache is None:
            return None
        beside = followers(cache)
        if not n_cached(cache):
            beside.clear()
            return copy.deepcopy(cache)
        if self._id not in beside:
            raise ValueError(
                'mode="replace" runs the base model beside this one, and needs what the base makes of all tokens before. The '
                f"cache that was given holds {n_cached(cache)} that ran outside this `steer`. Fill it inside, or give none."
            )
        return beside[self._id]

    def _keep(self, layer: int) -> OnResidual:
        def keep(resid: Residual) -> None:
            self.residuals[layer] = resid

        return keep
