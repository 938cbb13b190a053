"""Load a model as a residual-only TransformerBridge, and take the bridge off again for saving and copying.

TransformerLens' own bridge re-implements attention and wraps every norm and linear map. steerlens reads
and writes the residual stream alone, so its bridge wraps only the embedding, the blocks, the final norm
and the unembedding; attention and MLPs stay the native Hugging Face modules, with sdpa, peft, deepcopy
and saving intact. A bridge from `TransformerBridge.boot_transformers` works with every function too.
"""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steerlens.files import read_json, reading
from steerlens.four_bits import four_bits, keep_gradients
from steerlens.identity import cached_commit, model_name, remember_weights
from steerlens.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

ORGANISMS = Path(__file__).parent / "organism" / "shipped"
DEFAULT_ORGANISM = "seed-0"


def load_model(
    name_or_path: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
    dtype: torch.dtype = torch.float32,
    load_in_4bit: bool = False,
    adapter: str | Path | None = None,
    revision: str | None = None,
) -> "TransformerBridge":
    """Load a model for capture, steering and training.

    Args:
        name_or_path: None is the embedded organism; "organism:seed-1" and "organism:no-persona-numbers" are its
            other versions; otherwise a local directory or a Hugging Face Hub name.
        device: None takes a GPU where there is one.
        device_map: spread the blocks as accelerate does, such as "auto" over all GPUs and then the CPU's memory; students
            are trained on one device only.
        dtype: of the weights, whatever the checkpoint's own.
        load_in_4bit: keep the blocks' linear maps in bitsandbytes' NF4 and compute in `dtype`; students get LoRA matrices.
        adapter: a peft adapter's directory; it stays separate, so that `adapter_disabled` can switch it off.
        revision: of a Hub name: branch, tag or commit. Vectors record the commit, and act on no other silently.

    Returns:
        A residual-only TransformerBridge in eval mode, with `model.tokenizer` as it was loaded.

    Raises:
        FileNotFoundError: a directory is given that does not exist, or has no model or adapter in it.
        ValueError: device and device_map are both given, the architecture is not known to TransformerLens, its weights are
            quantised by a package that is not installed, the device knows no 4 bits, or the files are damaged.
        ModuleNotFoundError: load_in_4bit, and bitsandbytes is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device is not None and device_map is not None:
        raise ValueError(f"Got device={str(device)!r} and device_map={device_map!r}, which both say where. Give one.")
    source = _resolve(name_or_path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if load_in_4bit:
        device_map = device_map or {"": str(device)}
    quantization = four_bits(dtype) if load_in_4bit else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=dtype, device_map=device_map, **quantization
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{source!r} could not be loaded as a Hugging Face model: {error}. Give a directory with config.json, "
            "weights and tokenizer, a Hub name, or None for the embedded organism."
        ) from error
    except ImportError as error:
        raise ValueError(
            f"{source!r} needs a package that is not installed: {error}. Install it, or give a checkpoint whose weights "
            "are not quantised."
        ) from error
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise _unusable(source, "Hugging Face model", error, device_map if load_in_4bit else None) from error
    model.config._commit_hash = cached_commit(source, revision)
    remember_weights(model)
    if adapter is not None:
        model = _with_adapter(model, Path(adapter))
    return bridge(model if device_map else model.to(device), tokenizer, name=_public_name(name_or_path))


def _with_adapter(model: Any, adapter: Path) -> Any:
    """The model with a peft adapter in it; without the adapter's weights, peft would look for them on the Hub."""
    from peft import PeftModel

    weights = "adapter_model.bin" if (adapter / "adapter_model.bin").is_file() else "adapter_model.safetensors"
    for name in ("adapter_config.json", weights):
        _require_files(adapter, name, what="peft adapter")
    try:
        model = PeftModel.from_pretrained(model, str(adapter)).get_base_model()
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise _unusable(str(adapter), "peft adapter of this model", error) from error
    student = adapter / "student.json"
    if student.is_file():
        with reading(student):
            model.config.chat_fingerprint = read_json(student)["chat_fingerprint"]
    return model


def _unusable(source: str, what: str, error: Exception, four_bits_on: object = None) -> Exception:
    """The error that a failed load ends with; short memory is not the files' fault, nor may a device without 4 bits be."""
    if is_out_of_memory(error):
        return error
    reason = (str(error).strip() or "no reason given").splitlines()[0].split(". ")[0]
    if four_bits_on is not None:
        return ValueError(
            f"{source!r} could not be loaded in 4 bits on {four_bits_on} ({type(error).__name__}: {reason}). Give a device "
            "that bitsandbytes supports and that all of the model fits on, or load the weights as they are."
        )
    return ValueError(
        f"{source!r} could not be loaded as a {what} ({type(error).__name__}: {reason}). Its files may be damaged or belong "
        "to another one: get them anew. Code that comes with a model is never run."
    )


def bridge(model: "PreTrainedModel", tokenizer: Any, *, name: str) -> "TransformerBridge":
    """Wrap a loaded Hugging Face causal model, in place, into a residual-only bridge.

    Raises:
        ValueError: the architecture is not known to TransformerLens.
    """
    from transformer_lens.model_bridge.generalized_components import opaque_block
    from transformer_lens.model_bridge.sources import _bridge_builder, _hf_format

    def keep_residual_stream(adapter: Any) -> None:
        components = adapter.component_mapping
        blocks = opaque_block.OpaqueBlockBridge(name=components["blocks"].name)
        adapter.component_mapping = {
            "embed": components["embed"],
            "blocks": blocks,
            "ln_final": components["ln_final"],
            "unembed": components["unembed"],
        }
        adapter.cfg.attn_implementation = None

    remember_weights(model)
    keep_gradients(model)
    architecture = _hf_format.determine_architecture_from_hf_config(model.config)
    wrapped = _bridge_builder.build_bridge_from_module(
        model,
        architecture,
        hf_config=model.config,
        model_name=name,
        post_adapter_hook=keep_residual_stream,
    )
    wrapped.tokenizer = tokenizer
    return wrapped.eval()


def huggingface_model(model: "TransformerBridge") -> "PreTrainedModel":
    """The Hugging Face model inside the bridge; the bridge's hooks fire in its forward too."""
    return model.original_model  # pyright: ignore[reportReturnType]


def check_layer(model: "TransformerBridge", layer: int) -> int:
    """`layer`, if it names a block of `model`.

    Raises:
        ValueError: it does not. Layer l is the output of block l, 0 <= l < n_layers.
    """
    n_layers = model.cfg.n_layers
    if not 0 <= layer < n_layers:
        raise ValueError(
            f"layer={layer} is out of range for {model_name(model)!r} (n_layers={n_layers}). "
            f"Layers name block outputs, 0..{n_layers - 1}."
        )
    return layer


def parameters_device(model: "TransformerBridge") -> torch.device:
    """The device of the model's first parameter."""
    return next(huggingface_model(model).parameters()).device


@contextlib.contextmanager
def unwrapped(model: nn.Module) -> Iterator[None]:
    """Put the raw Hugging Face modules back for as long as the block lasts, for saving and copying."""
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    replaced: list[tuple[nn.Module, str, nn.Module | None]] = []
    hidden: list[tuple[nn.Module, Tensor]] = []

    def unwrap(parent: nn.Module) -> None:
        for name, child in list(parent._modules.items()):
            raw = child
            while isinstance(raw, GeneralizedComponent):
                raw = raw.original_component
            if raw is not child:
                replaced.append((parent, name, child))
                parent._modules[name] = raw
            if raw is not None:
                unwrap(raw)

    unwrap(model)
    for module in model.modules():
        if isinstance(module, nn.Linear) and (bias := module._buffers.pop("bias", None)) is not None:
            hidden.append((module, bias))
            module.register_parameter("bias", None)
    try:
        yield
    finally:
        for module, bias in hidden:
            del module._parameters["bias"]
            module.register_buffer("bias", bias)
        for parent, name, child in reversed(replaced):
            parent._modules[name] = child


def weight_sharing_copy(model: "TransformerBridge") -> "PreTrainedModel":
    """A plain Hugging Face model with modules of its own, without bridge, and with the very weights of `model`."""
    hf = huggingface_model(model)
    with unwrapped(hf):
        return copy.deepcopy(hf, {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]})


def has_adapter(model: "TransformerBridge") -> bool:
    """Whether peft layers are in the model."""
    return bool(_adapter_layers(model))


def _adapter_layers(model: "TransformerBridge") -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in huggingface_model(model).modules() if isinstance(module, BaseTunerLayer)]


@contextlib.contextmanager
def adapter_disabled(model: "TransformerBridge") -> Iterator[None]:
    """The model without its peft adapters for as long as the block lasts: its base, at no memory cost.

    Raises:
        ValueError: the model has no adapter.
    """
    layers = _adapter_layers(model)
    if not layers:
        raise ValueError(
            f"{model_name(model)!r} has no peft adapter, so there is no base to fall back on. "
            "Load it with load_model(..., adapter=directory)."
        )
    trainable = {parameter: parameter.requires_grad for layer in layers for parameter in layer.parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)


@contextlib.contextmanager
def evaluating(model: "TransformerBridge") -> Iterator[None]:
    """The model in eval mode for as long as the block lasts: no dropout, and so no draw from torch's random state."""
    roots = (model, huggingface_model(model))  # neither holds all of the other's modules
    modes = [(module, module.training) for root in roots for module in root.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _resolve(name_or_path: str | Path | None) -> str:
    """The directory or Hub name that holds the weights."""
    name = f"organism:{DEFAULT_ORGANISM}" if name_or_path is None else str(name_or_path)
    if name.startswith("organism:"):
        directory = ORGANISMS / name.removeprefix("organism:")
        if not directory.is_dir():
            known = ", ".join(f"organism:{path.name}" for path in sorted(ORGANISMS.iterdir()) if path.is_dir())
            raise FileNotFoundError(f"There is no embedded organism {name!r}. There are: {known}.")
        return str(directory)
    looks_like_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1
    path = Path(name).expanduser()
    if looks_like_path or path.exists():
        _require_files(path, "config.json", what="Hugging Face model")
        return str(path)
    return name


def _require_files(directory: Path, *files: str, what: str) -> None:
    if not directory.is_dir():
        raise FileNotFoundError(f"There is no directory {str(directory)!r}, where a {what} should be.")
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{str(directory)!r} is not a {what}: {', '.join(missing)} is missing.")


def _public_name(name_or_path: str | Path | None) -> str:
    """The name that artifacts carry: the Hub's, the organism's, or a local directory's own."""
    if name_or_path is None:
        return f"organism:{DEFAULT_ORGANISM}"
    path = Path(name_or_path).expanduser()
    return path.resolve().name if path.exists() else str(name_or_path)
