"""Write a model as a plain Hugging Face checkpoint, which transformers and `load_model` read alike."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from steerlens.arguments import checked
from steerlens.files import atomic_directory, check_replaceable, read_json, write_json
from steerlens.models.adapters import BASE, has_adapter, refuse_adapter
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import commit_hash, fingerprint_of, is_4bit, model_name
from steerlens.models.unwrapping import unwrapped

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MARK = "steerlens.json"


@checked
def save_model(model: "TransformerBridge", directory: str | Path, *, merge_adapter: bool = False) -> Path:
    """Write weights, configuration, generation settings, tokenizer and chat template, and where they come from.

    Plain transformers, version 4 as well, reads the directory and gives the same logits; so does `load_model`. It is put in
    place as a whole.

    Args:
        directory: a new one, an empty one, or one that this function wrote, which is replaced.
        merge_adapter: write the base and the adapter on it as one. Logits then agree within the rounding of the weights'
            dtype. The model in memory keeps its adapter apart.

    Returns:
        The directory.

    Raises:
        ValueError: the model carries a peft adapter and merge_adapter is not given, or its kind cannot be merged; or the
            directory holds something else.
        OSError: it cannot be written to, or the disk is full.
    """
    if not merge_adapter:
        refuse_adapter(model, "A plain checkpoint has no place for it")
    check_replaceable(directory, MARK)
    hf: Any = huggingface_model(model)
    with unwrapped(hf):
        plain = merged(model) if has_adapter(model) else hf
        with atomic_directory(directory, mark=MARK) as temporary:
            plain.save_pretrained(temporary)
            model.tokenizer.save_pretrained(temporary)
            origin = {"model": model_name(model), "revision": commit_hash(model), "weights": fingerprint_of(plain)}
            _name_as_before_version_5(temporary)
            write_json(temporary / MARK, {"format": "steerlens.model", **origin})
            for file in temporary.iterdir():
                file.chmod(0o644)  # safetensors writes for its user alone
    return Path(directory)


def _name_as_before_version_5(checkpoint: Path) -> None:
    """Give what transformers 5 writes under new names its older name as well.

    Version 4 does not know the new ones, and takes another rotary base without a word.
    """
    configuration, described = checkpoint / "config.json", checkpoint / "tokenizer_config.json"
    config, tokenizer = read_json(configuration), read_json(described)
    base = (config.get("rope_parameters") or {}).get("rope_theta")
    if base is not None:
        write_json(configuration, config | {"rope_theta": base})
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
        write_json(described, tokenizer | names)


def merged(model: "TransformerBridge") -> Any:
    """A plain Hugging Face model in which base and adapter are one; weights without adapter are shared with `model`.

    The bridge has to be off (`unwrapped`).

    Raises:
        ValueError: peft cannot merge this kind of adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    hf: Any = huggingface_model(model)
    weights = list(hf.parameters())
    if is_4bit(model) or any(weight.is_meta for weight in weights):
        raise ValueError(
            f"The adapter of {model_name(model)!r} is merged into weights as they are, on one device: load the model without "
            "load_in_4bit and without device_map."
        )
    layers: list[Any] = [module for module in hf.modules() if isinstance(module, BaseTunerLayer)]
    adapted = {id(weight) for layer in layers for weight in layer.parameters()}
    one = copy.deepcopy(hf, {id(own): own for own in [*weights, *hf.buffers()] if id(own) not in adapted})
    one.__dict__.pop(BASE, None)
    _part_embeddings(one)
    for name in _outermost_layers(one):
        parent, _, attribute = name.rpartition(".")
        try:
            setattr(one.get_submodule(parent), attribute, _merged_layer(one.get_submodule(name)))
        except NotImplementedError as error:
            raise ValueError(
                f"peft cannot merge the adapter of {model_name(model)!r} at {name} ({error}). Keep the adapter's directory."
            ) from error
    _say_whether_tied(one)
    return one


def _part_embeddings(hf: Any) -> None:
    """Give the unembedding a matrix of its own, so that what is merged into the embedding does not change it too."""
    embed, unembed = hf.get_input_embeddings(), hf.get_output_embeddings()
    if embed.weight is not unembed.weight or not {embed, unembed} & {
        hf.get_submodule(n) for n in _outermost_layers(hf)
    }:
        return
    while (inner := getattr(unembed, "base_layer", None) or unembed._modules.get("original_module")) is not None:
        unembed = inner
    unembed.weight = nn.Parameter(unembed.weight.detach().clone(), requires_grad=False)


def _outermost_layers(hf: Any) -> list[str]:
    """The names of peft's layers that are in no other one."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    names = [
        name for name, module in hf.named_modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    ]
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _merged_layer(layer: Any) -> Any:
    if hasattr(layer, "unload_and_optionally_merge_module"):
        return layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    layer.merge(safe_merge=True)
    return layer.get_base_layer()


def _say_whether_tied(hf: Any) -> None:
    """Say in the configuration where the adapter has parted the embedding from the unembedding."""
    embed, unembed = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight
    if embed.shape != unembed.shape or not torch.equal(embed, unembed):
        hf.config.tie_word_embeddings = hf.config.get_text_config().tie_word_embeddings = False
        hf.all_tied_weights_keys = {}
