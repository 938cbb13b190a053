"""The context manager that steers a model by vectors at chosen tokens."""

import contextlib
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from steerlens.checks import WrongInput, shown
from steerlens.text.batches import TokenMask
from steerlens.text.chat import chat_fingerprint
from steerlens.text.context import warn_on_other_context
from steerlens.text.positions import POSITIONS, Positions
from steerlens.vectors.steered_tokens import RowStrengths
from steerlens.vectors.steering import Mode, Steering
from steerlens.vectors.vector import SteeringVector
from steerlens.warn import warn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@contextlib.contextmanager
def steer(
    model: "TransformerBridge",
    vector: SteeringVector | Sequence[SteeringVector],
    *,
    mode: Mode = "add",
    strength: float | RowStrengths = 1.0,
    positions: Positions | TokenMask | None = None,
) -> Iterator[None]:
    """Steer every forward inside the `with`, cached and batched generation included.

    Args:
        vector: one, or several at once. Their order does not matter: several are added as their sum, and their whole span is
            projected out or replaced. Nested `with`s act one after the other, so that each may have its own strength and
            positions; added vectors then still sum up.
        mode: "add" (h + strength v), "project_out", or "replace" with the component of the model whose peft
            adapters are switched off.
        strength: multiplies v in mode "add"; one number, or a tensor with one for each prompt, in the order in which the
            function that runs is given them.
        positions: "all" tokens, the "prompt", its last token ("last_prompt"), or the tokens that are "generated". A mask
            [prompt, token], True where to steer, has the shape of the prompts, padding included: that of `input_ids`, or that
            of chats that are padded on the left (`turn_mask`, for the turns of one role). It steers no generated token; nest
            a second `steer` at "generated" for those. None takes what the vector was fitted at, and "all" for one that was
            measured or imported.

    Every call of `generate`, steerlens', Hugging Face's or TransformerLens', has a prompt of its own: all that it is given,
    whether it comes at once, in chunks or behind a cache. In a chat that grows, what was generated in the turn before is of
    the prompt in the next. What a cache holds stays as it was when it was computed. Outside `generate`, a forward is a
    prompt of its own, and one that continues a cache by one token a row has generated it.

    Warns:
        ChatContextWarning: a vector was made under another chat template.
        UserWarning: a vector was fitted at other positions; or many layers are steered at once, further than the model bears.

    Raises:
        WrongInput: an argument of the wrong kind.
        ValueError: unknown mode or positions, a vector of another model or a layer that the model lacks, a strength that is
            no number or has no meaning, or "replace" on a model without adapter. In the `with`: a mask or strengths of another
            shape than the prompts, or a forward outside `generate` that continues a cache by several tokens, which may be of
            the prompt or generated.
    """
    vectors = _checked_vectors(vector)
    _check_mode(mode, strength)
    for one in vectors:
        one.check_model(model)
        if one.source.chat_fingerprint is not None:
            warn_on_other_context(one.source.chat_fingerprint, chat_fingerprint(model.tokenizer), "The vector")
    with Steering(model, vectors, mode, strength, acting_positions(vectors, positions)).on(model):
        yield


def acting_positions(
    vectors: Sequence[SteeringVector], positions: Positions | TokenMask | None
) -> Positions | TokenMask:
    """Where vectors act: as is said, or else where they were fitted.

    Warns:
        UserWarning: a vector was fitted at other positions than those that are said.

    Raises:
        WrongInput: neither a name nor a mask.
        ValueError: an unknown name, no mask of two dimensions, or vectors that were fitted at different positions.
    """
    fitted = {vector.source.positions for vector in vectors} - {None}
    if positions is None and len(fitted) > 1:
        raise ValueError(
            f"The vectors were fitted at different tokens: {', '.join(sorted(map(str, fitted)))}. Nest one `with steer(...)` for "
            "each, or say positions=... for all."
        )
    chosen: Any = positions if positions is not None else next(iter(fitted), "all")
    if isinstance(chosen, Tensor):
        if chosen.dtype != torch.bool or chosen.ndim != 2:
            raise ValueError(
                f"A mask of positions has bool values and shape [prompt, token], got {chosen.dtype} of shape "
                f"{tuple(chosen.shape)}. Write mask.bool(), and mask[None] for a single prompt."
            )
        return chosen
    if not isinstance(chosen, str):
        raise WrongInput(
            f"positions must be a name ({', '.join(POSITIONS)}) or a bool tensor [prompt, token], got {shown(chosen)}."
        )
    if chosen not in POSITIONS:
        turns = " For the turns of a role, write positions=steerlens.turn_mask(model, chats, 'user')."
        raise ValueError(f"positions={chosen!r} is not known. Allowed: {', '.join(POSITIONS)}, or a mask.{turns}")
    for other in fitted - {chosen}:
        warn(
            f"A vector that was fitted at {other!r} tokens is used at {chosen!r} tokens, where its strength and what was "
            "measured of it need not hold. Leave positions out to use it where it was fitted."
        )
    return chosen


def _checked_vectors(given: Any) -> tuple[SteeringVector, ...]:
    vectors = (given,) if isinstance(given, SteeringVector) else given
    if isinstance(vectors, str):
        raise WrongInput(
            f"vector must be a SteeringVector, got {shown(given)}. Read a file with SteeringVector.load(path)."
        )
    if isinstance(vectors, Tensor):
        raise WrongInput(
            f"vector must be a SteeringVector, got a tensor of shape {tuple(vectors.shape)}. Make one with "
            "steerlens.import_tensor(tensor, model, layers=...)."
        )
    if not isinstance(vectors, Sequence) or not all(isinstance(vector, SteeringVector) for vector in vectors):
        raise WrongInput(f"vector must be a SteeringVector, or several in a list, got {shown(given)}.")
    if not vectors:
        raise ValueError("Got no vectors. Give at least one, or leave steer out.")
    return tuple(vectors)


def _check_mode(mode: Any, strength: Any) -> None:
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r} is not known. Allowed: {', '.join(get_args(Mode))}.")
    if isinstance(strength, Tensor):
        if strength.ndim != 1 or not strength.is_floating_point() or not strength.isfinite().all():
            raise ValueError(
                f"A tensor of strengths has one finite float for each prompt, got {strength.dtype} of shape "
                f"{tuple(strength.shape)}. Write torch.tensor([0.5, 1.0, ...])."
            )
    elif not isinstance(strength, Real):
        raise WrongInput(
            f"strength must be a number, or a tensor with one for each prompt (torch.tensor([0.5, 1.0])), got {shown(strength)}."
        )
    elif not abs(float(strength)) < float("inf"):
        raise ValueError(f"strength={strength} is not a finite number. Give one, such as 1.0.")
    if mode != "add" and not (isinstance(strength, Real) and strength == 1):
        raise ValueError(
            f"mode={mode!r} uses the vector's direction alone, so strength={shown(strength)} has no meaning. Leave it out."
        )
