"""Vectors of other tools: llama.cpp's and repeng's gguf, the files of arXiv 2606.00995, and bare tensors.

Layers mean the following, and are never shifted on the way:

| here                   | llama.cpp, repeng | the paper's `raw` |
|------------------------|-------------------|-------------------|
| (embeddings)           |                   | raw[0]            |
| block 0's output       | repeng only       | raw[1]            |
| block l's output, l > 0 | direction.l       | raw[l + 1]        |

llama.cpp adds `direction.l` to the output of the block that it counts as l from 0, and has none for block 0: it
refuses a file with `direction.0` (src/llama-adapter.cpp, and the loader in common/common.cpp). repeng keys its
directions by the block's index as well (repeng/extract.py reads hidden_states[l + 1]). What llama.cpp's own
cvector-generator measures after block l it names direction.(l + 1), so llama.cpp adds it one block later; such a file
is imported where llama.cpp adds it.
"""

import pickle
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.checks import WrongInput, shown
from steerlens.files import atomic_path
from steerlens.models.bridge import check_bridge
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ARCHITECTURE = "controlvector"


@checked
def export_gguf(vector: SteeringVector, path: str | Path, *, model_hint: str | None = None) -> None:
    """Write a control vector that llama.cpp (`--control-vector`) and repeng (`import_gguf`) read, atomically.

    Both add it at every token, as `steer` does by default; their scale is `steer`'s strength.

    Args:
        model_hint: the model's family, as Hugging Face's model_type names it; None takes the vector's own.

    Raises:
        ValueError: the vector has a direction at layer 0, which llama.cpp cannot add, or its model's family is
            not known.

    Warns:
        UserWarning: the vector was fitted at some tokens only.
    """
    import gguf

    if 0 in vector.layers:
        others = tuple(layer for layer in sorted(vector.layers) if layer != 0)
        raise ValueError(
            f"The vector has layers {vector.layers}, but llama.cpp adds nothing after block 0 and refuses direction.0. "
            + (f"Leave that layer out: vector.at{others}." if others else "Make the vector at layer 1 or above.")
        )
    hint = model_hint if model_hint is not None else vector.source.architecture
    if hint is None:
        raise ValueError(
            f"The family of {vector.source.model!r} is not known. Say it, such as model_hint='llama' or 'qwen2' "
            "(model_type in the model's config.json), or declare the model with vector.for_model(model)."
        )
    vector.source.warn_of_every_token("llama.cpp")
    with atomic_path(path) as temporary, closing(gguf.GGUFWriter(temporary, ARCHITECTURE)) as writer:
        writer.add_description(f"{vector.source.words}, on {vector.source.model}")
        writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vector.layers))
        for layer, direction in zip(vector.layers, vector.directions, strict=True):
            writer.add_tensor(f"direction.{layer}", direction.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


@checked
def import_gguf(path: str | Path, model: "TransformerBridge | str") -> SteeringVector:
    """Read a control vector of llama.cpp or repeng: `direction.l` becomes the output of block l.

    Args:
        model: the model for which the vector is meant, or its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no control vector, it is damaged, or it does not fit the model.
    """
    import gguf

    _check_model(model)
    _check_exists(path)
    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = None if field is None else field.contents()
    except Exception as error:  # damaged bytes lead the reader anywhere
        raise ValueError(f"{path} is no gguf file, or a damaged one ({error}). Export it anew.") from error
    if architecture != ARCHITECTURE:
        raise ValueError(
            f"{path} is a gguf file of architecture {architecture!r}, not {ARCHITECTURE!r}. "
            "Give a control vector, as llama.cpp's cvector-generator, repeng or export_gguf write it."
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors if tensor.name.startswith("direction.")}
    bad = [
        name
        for name, tensor in tensors.items()
        if not name.removeprefix("direction.").isdecimal()
        or tensor.tensor_type != gguf.GGMLQuantizationType.F32
        or tensor.data.ndim != 1
    ]
    if bad or not tensors:
        raise ValueError(
            f"{path} has {f'an unusable tensor {bad[0]!r}' if bad else 'no tensors'}. "
            "A control vector has float32 tensors direction.<layer> of shape [d_model]. Export it anew."
        )
    rows = {int(name.removeprefix("direction.")): torch.tensor(tensor.data) for name, tensor in tensors.items()}
    if len({len(row) for row in rows.values()}) > 1:
        raise ValueError(f"{path} has directions of different lengths. Export it anew.")
    return _imported(
        torch.stack([rows[layer] for layer in sorted(rows)]), sorted(rows), model, f"gguf file {_name(path)}"
    )


@checked
def import_paper(path: str | Path, model: "TransformerBridge | str") -> SteeringVector:
    """Read a vector file of arXiv 2606.00995, {raw, unit, norm, meta}: raw[l + 1] becomes the output of block l.

    Slot 0, the embeddings, is left out; it has no place here. The vector has every layer: `vector.at(l)` takes one.

    Args:
        model: the model for which the vector is meant, or its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, has another layout, needs code to be run to be read, or does not fit the model.
    """
    _check_model(model)
    _check_exists(path)
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no torch file, or it holds more than tensors, numbers and texts, which could run code when "
            "read, and is refused. If you trust it, load it yourself and pass its tensor: "
            "steerlens.import_tensor(raw[1:], model)."
        ) from error
    except Exception as error:  # damaged bytes lead the unpickler anywhere
        raise ValueError(f"{path} is no torch file, or a damaged one ({error}). Get or make it anew.") from error
    raw = loaded.get("raw") if isinstance(loaded, dict) else None
    if not isinstance(raw, Tensor) or raw.ndim != 2 or len(raw) < 2:
        got = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(loaded).__name__
        raise ValueError(
            f"{path} has no tensor 'raw' of shape [n_layers + 1, d_model] (got {got}). "
            "Pass another layout's tensor to steerlens.import_tensor."
        )
    if not isinstance(model, str) and len(raw) != model.cfg.n_layers + 1:
        raise ValueError(
            f"{path} has {len(raw)} slots, but {model.cfg.model_name!r} has {model.cfg.n_layers} blocks and so needs "
            f"{model.cfg.n_layers + 1} (the embeddings come first). Give the model that the vector was made on."
        )
    return _imported(raw[1:], range(len(raw) - 1), model, f"file {_name(path)} of the paper's layout")


def import_tensor(
    tensor: Float[Tensor, "*layer d_model"],
    model: "TransformerBridge | str",
    *,
    layers: int | Sequence[int] | None = None,
) -> SteeringVector:
    """Make a vector of a tensor of another tool.

    Args:
        tensor: [d_model], or [layer, d_model].
        model: the model for which the vector is meant, or its name.
        layers: the block after which each row is added, counted from 0; None where there is a row for every block.

    Raises:
        ValueError: the shape, the layers and the model do not fit one another.
    """
    if not isinstance(tensor, Tensor):
        raise WrongInput(
            f"tensor must be a torch tensor, [d_model] or [layer, d_model], got {shown(tensor)}. Write torch.tensor(...); a "
            "file is read by steerlens.import_gguf or import_paper."
        )
    _check_model(model)
    rows = tensor[None] if tensor.ndim == 1 else tensor
    if rows.ndim != 2 or not rows.is_floating_point():
        raise ValueError(
            f"Got a tensor of shape {tuple(tensor.shape)} and {tensor.dtype}. Give floats, [d_model] or [layer, d_model]."
        )
    n_layers = None if isinstance(model, str) else model.cfg.n_layers
    if layers is None and len(rows) != n_layers:
        extra = " If its first row is the embeddings', pass tensor[1:]." if len(rows) - 1 == n_layers else ""
        raise ValueError(
            f"Got {len(rows)} rows for {'a model that is only named' if n_layers is None else f'{n_layers} blocks'}. "
            f"Say with layers= after which block each row is added.{extra}"
        )
    if isinstance(layers, str) or not isinstance(layers, int | Sequence | None):
        raise WrongInput(f"layers must be a block number or several, such as [12], got {shown(layers)}.")
    layers = range(len(rows)) if layers is None else [layers] if isinstance(layers, int) else layers
    return _imported(rows, layers, model, "tensor")


def _imported(
    rows: Float[Tensor, "layer d_model"], layers: Sequence[int], model: "TransformerBridge | str", what: str
) -> SteeringVector:
    vector = SteeringVector(tuple(layers), rows, VectorSource.of(model, method=f"imported from a {what}"))
    if not isinstance(model, str):
        vector.check_model(model)
    return vector


def _check_model(model: Any) -> None:
    if not isinstance(model, str):
        check_bridge(model)


def _check_exists(path: str | Path) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}. Give a vector file's path.")


def _name(path: str | Path) -> str:
    return repr(Path(path).name)
