"""Vectors as other libraries hold them in memory, both ways; files are in `formats`.

All of them count blocks from 0 and act on the output of a block, so layers pass as they are:

| library          | its object                                       | keyed by          |
|------------------|--------------------------------------------------|-------------------|
| repeng           | ControlVector(model_type, directions)            | block             |
| steering-vectors | SteeringVector(layer_activations, layer_type)    | block, of a type  |
| vllm-lens        | SteeringVector(activations, layer_indices, scale)| block             |
| TransformerLens  | fwd_hooks, pairs of a hook point and a function  | blocks.{l}.hook_out |
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import WrongInput, shown

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from steerlens.vectors.source import VectorSource
    from steerlens.vectors.vector import SteeringVector

Hook = Callable[[Float[Tensor, "batch pos d_model"], Any], Float[Tensor, "batch pos d_model"]]


class ExchangedVector:
    """What lets a SteeringVector act in other libraries."""

    layers: tuple[int, ...]
    directions: Float[Tensor, "layer d_model"]
    source: "VectorSource"

    def as_hook(self, *, mode: Literal["add", "project_out"] = "add", strength: float = 1.0) -> Hook:
        """A TransformerLens hook that steers every token of the block whose output it is called with.

        It leaves the outputs of blocks alone that the vector has no direction for, so one hook serves them all:
        `model.add_hook("blocks.3.hook_out", vector.as_hook())`.

        Args:
            mode: "add" (h + strength v), or "project_out".
            strength: multiplies v in mode "add"; "project_out" uses the direction alone.

        Raises:
            ValueError: unknown mode.

        Warns:
            UserWarning: the vector was fitted at some tokens only.
        """
        from steerlens.vectors.edits import add, project_out

        if mode not in ("add", "project_out"):
            raise ValueError(f"mode={mode!r} is not known here. Allowed: add, project_out. steer() has the others.")
        self.source.warn_of_every_token("the hook")
        rows = dict(zip(self.layers, strength * self.directions if mode == "add" else self.directions, strict=True))
        edit = add if mode == "add" else project_out

        def hook(resid: Tensor, hook: Any) -> Tensor:
            row = rows.get(hook.layer())
            return resid if row is None else edit(resid, row.to(resid))

        return hook

    def as_fwd_hooks(
        self, *, mode: Literal["add", "project_out"] = "add", strength: float = 1.0
    ) -> list[tuple[str, Hook]]:
        """What `run_with_hooks(tokens, fwd_hooks=...)` and `hooks(fwd_hooks=...)` of TransformerLens take.

        Args, errors and warnings are those of `as_hook`.
        """
        hook = self.as_hook(mode=mode, strength=strength)
        return [(f"blocks.{layer}.hook_out", hook) for layer in self.layers]

    def to_vllm_lens(self, *, strength: float = 1.0) -> dict[str, Any]:
        """The JSON of one vector of a request to vLLM with the vllm-lens plugin, 1.3 or newer.

        The plugin adds strength v to the residual stream (vLLM's two parts together) after each block, at every token
        of the prompt and of the answer. Over HTTP, `vllm_xargs={"apply_steering_vectors": json.dumps([...])}`;
        in Python, `SamplingParams(extra_args={"apply_steering_vectors": [...]})`.

        Warns:
            UserWarning: the vector was fitted at some tokens only.
        """
        self.source.warn_of_every_token("vllm-lens")
        return {
            "activations": {
                "data": base64.b64encode(self.directions.numpy().astype("<f4").tobytes()).decode("ascii"),
                "dtype": "float32",
                "original_dtype": "torch.float32",
                "shape": list(self.directions.shape),
            },
            "layer_indices": list(self.layers),
            "scale": float(strength),
            "norm_match": False,
            "position_indices": None,
        }

    def to_repeng(self) -> Any:
        """A repeng ControlVector with the same directions, for `ControlModel(model, vector.layers).set_control`.

        repeng adds it at every token; its coefficient is our strength.

        Raises:
            ImportError: repeng is not installed, or does not run here (0.4.0 needs NumPy below 2).
            ValueError: the family of the vector's model is not known.

        Warns:
            UserWarning: the vector was fitted at some tokens only.
        """
        try:
            from repeng import ControlVector  # pyright: ignore[reportMissingImports]
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"repeng cannot be imported ({error}). Install it (pip install repeng); its 0.4.0 needs NumPy below 2. "
                "It also reads the file that steerlens.export_gguf writes: ControlVector.import_gguf(path)."
            ) from error
        if self.source.architecture is None:
            raise ValueError(
                f"The family of {self.source.model!r} is not known. Declare the model with vector.for_model(model)."
            )
        self.source.warn_of_every_token("repeng")
        directions = {layer: row.numpy() for layer, row in zip(self.layers, self.directions, strict=True)}
        return ControlVector(model_type=self.source.architecture, directions=directions)

    def to_steering_vectors(self) -> Any:
        """A SteeringVector of the steering-vectors library with the same directions; its `multiplier` is our strength.

        Raises:
            ImportError: steering-vectors is not installed.

        Warns:
            UserWarning: the vector was fitted at some tokens only.
        """
        try:
            import steering_vectors  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                f"steering-vectors cannot be imported ({error}). Install it: pip install steering-vectors."
            ) from error
        self.source.warn_of_every_token("steering-vectors")
        return steering_vectors.SteeringVector(dict(zip(self.layers, self.directions, strict=True)), "decoder_block")


def import_vector(theirs: Any, model: "TransformerBridge | str") -> "SteeringVector":
    """Read a vector that another library holds in memory, by its attributes alone; that library is not imported.

    Args:
        theirs: a ControlVector of repeng, a SteeringVector of steering-vectors or vllm-lens, or a mapping of blocks,
            counted from 0, to rows of length d_model.
        model: the model for which the vector is meant, or its name.

    Raises:
        ValueError: it is none of these, does something else than adding rows to the outputs of blocks, or does not fit
            the model.
    """
    from steerlens.vectors.formats import import_tensor

    found = _rows_of(theirs)
    try:
        rows = {int(layer): torch.as_tensor(row).float() for layer, row in found.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongInput(
            f"A vector maps block numbers to rows of numbers, such as {{12: torch.zeros(d_model)}}, got {shown(dict(found))}."
        ) from error
    if not rows or len({row.shape for row in rows.values()}) > 1 or next(iter(rows.values())).ndim != 1:
        shapes = {layer: tuple(row.shape) for layer, row in rows.items()}
        raise ValueError(f"Got rows of the shapes {shapes}. Give at least one, each of shape [d_model].")
    vector = import_tensor(torch.stack(list(rows.values())), model, layers=list(rows))
    library = type(theirs).__module__.split(".")[0]
    return replace(vector, source=replace(vector.source, method=f"imported from {library}'s {type(theirs).__name__}"))


def _rows_of(theirs: Any) -> Mapping[int, Any]:
    if isinstance(theirs, Mapping):
        return theirs
    if isinstance(activations := getattr(theirs, "layer_activations", None), Mapping):
        if theirs.layer_type != "decoder_block":
            raise ValueError(
                f"The vector acts on {theirs.layer_type!r}, but vectors here act on the outputs of whole blocks. "
                "Train it with layer_type='decoder_block'."
            )
        return activations
    if isinstance(directions := getattr(theirs, "directions", None), Mapping):
        return directions
    if isinstance(layers := getattr(theirs, "layer_indices", None), list):
        if theirs.norm_match or theirs.activations.ndim != 2:
            raise ValueError(
                "The vector is scaled to the residual's norm (norm_match) or has a row for each position, which vectors "
                "here have not. Give one with norm_match=False and activations of shape [layer, d_model]."
            )
        return dict(zip(layers, theirs.scale * theirs.activations, strict=True))
    raise ValueError(
        f"Got {type(theirs).__name__}. Give a vector of repeng, steering-vectors or vllm-lens, or a mapping of blocks to "
        "rows; a bare tensor goes to steerlens.import_tensor."
    )
