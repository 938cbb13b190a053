"""What a fine-tuning added to the weights, and updates of the same size that say nothing.

A null update keeps the singular values of every matrix of the true one and the size of each of its entries, and turns its
directions: rows and columns change their sign at random, D U D' with diagonal D and D' of +1 and -1.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.models.adapters import has_adapter, refuse_adapter
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import is_4bit, model_name
from steerlens.models.saving import merged
from steerlens.models.unwrapping import unwrapped

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_NAMED = 3


class WeightUpdate:
    """`tuned` minus `base`, weight by weight; an adapter is merged for it.

    Raises:
        ValueError: the models have other weights, `base` has an adapter, or the weights are in 4 bits.
    """

    def __init__(self, base: "TransformerBridge", tuned: "TransformerBridge") -> None:
        refuse_adapter(base, "A base model is compared as it is")
        for model in (base, tuned):
            if is_4bit(model):
                raise ValueError(
                    f"The weights of {model_name(model)!r} are in 4 bits, so that a difference of them means little. Load both "
                    "models without load_in_4bit."
                )
        own, theirs = _plain_weights(base), _plain_weights(tuned)
        _check_alike(own, theirs, model_name(base), model_name(tuned))
        self._changed = {
            name: (weight, theirs[name])
            for name, weight in own.items()
            if not torch.equal(weight.to(theirs[name]), theirs[name])
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that changed."""
        return tuple(self._changed)

    @property
    def n_bytes(self) -> int:
        """Memory that a null update takes: the base's own weights are kept meanwhile."""
        return sum(weight.nbytes for weight, _ in self._changed.values())

    @property
    def relative_norm(self) -> float:
        """Frobenius norm of the update over that of the weights that changed; 0 where none did."""
        moved = own = 0.0
        for weight, after in self._changed.values():
            moved += float(_update(weight, after).square().sum())
            own += float(weight.float().square().sum())
        return (moved / own) ** 0.5 if own else 0.0

    @contextlib.contextmanager
    @torch.no_grad()
    def scrambled(self, seed: int) -> Iterator[None]:
        """The base has a null update inside the `with`, and its own weights, bit for bit, behind it."""
        generator = torch.Generator().manual_seed(seed)
        own = {name: weight.clone() for name, (weight, _) in self._changed.items()}
        try:
            for weight, after in self._changed.values():
                weight.copy_(weight.float() + _signs_turned(_update(weight, after), generator))
            yield
        finally:
            for name, (weight, _) in self._changed.items():
                weight.copy_(own[name])


def _update(weight: Tensor, after: Tensor) -> Float[Tensor, "..."]:
    return after.to(weight.device).float() - weight.float()


def _signs_turned(update: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    for axis, size in enumerate(update.shape):
        signs = 1.0 - 2 * torch.randint(2, (size,), generator=generator)
        update = update * signs.to(update).reshape(-1, *[1] * (update.ndim - axis - 1))
    return update


def _plain_weights(model: "TransformerBridge") -> dict[str, Tensor]:
    """The weights under their plain names; they share memory with the model's, but for those with an adapter."""
    hf: Any = huggingface_model(model)
    with unwrapped(hf):
        plain = merged(model) if has_adapter(model) else hf
        return {name: weight.detach() for name, weight in plain.named_parameters()}


def _check_alike(own: dict[str, Tensor], theirs: dict[str, Tensor], base: str, tuned: str) -> None:
    other = sorted(own.keys() ^ theirs.keys())
    other += [name for name in own.keys() & theirs.keys() if own[name].shape != theirs[name].shape]
    if other:
        raise ValueError(
            f"{tuned!r} is no fine-tuning of {base!r}: {len(other)} of their weights are not of one shape, such as "
            f"{', '.join(other[:N_NAMED])}. Give the very model that was fine-tuned as the base."
        )
