"""Put a peft adapter into a model: all of it, with its tokenizer, or not at all."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steerlens.files import read_json, reading
from steerlens.models.adapters import check_kind, keep_base
from steerlens.models.files import require_files, unusable
from steerlens.warn import peft_unwarned, warn

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
OF_PEFT = re.compile(r"^base_model\.model\.|base_layer\.|original_module\.|modules_to_save\.|token_adapter\.")
"""What peft writes into the names of a base's own weights."""


def with_adapter(model: Any, tokenizer: Any, adapter: Path, base: str) -> tuple[Any, Any]:
    """A Hugging Face model with the adapter of a directory in it, and the tokenizer that goes with it.

    The tokenizer and the chat template in the directory come first; where they add tokens, the embedding grows.

    Args:
        base: how the model is called, for messages.

    Raises:
        FileNotFoundError: the directory does not exist or lacks a file.
        ValueError: the adapter's kind is not supported, it belongs to another base, or its files are damaged.

    Warns:
        UserWarning: the adapter was trained on a base of another name, whose shapes are the same.
    """
    from peft import PeftConfig, PeftModel, load_peft_weights

    weights_file = next((name for name in WEIGHTS if (adapter / name).is_file()), WEIGHTS[0])
    for name in ("adapter_config.json", weights_file):  # without it, peft would look on the Hub
        require_files(adapter, name, what="peft adapter")
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        if config.peft_type is None:
            raise LookupError("adapter_config.json names no peft_type")
        weights = load_peft_weights(str(adapter), device="cpu")
        own_tokenizer = _own_tokenizer(adapter, tokenizer)
    except Exception as error:  # damaged bytes lead the readers anywhere
        raise unusable(str(adapter), "peft adapter", error) from error
    check_kind(config)
    _make_room(model, own_tokenizer, config, weights, adapter)
    overwritten = _overwritten(model, weights)
    try:
        with warnings.catch_warnings(), peft_unwarned():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            peft_model = PeftModel.from_pretrained(model, str(adapter))
        _check_all_used(peft_model, weights)
    except Exception as error:
        raise _not_of_this_base(error, adapter, config, base) from error
    _warn_of_another_name(adapter, config, model, base)
    hf = peft_model.get_base_model()
    keep_base(hf, overwritten)
    _remember_context(hf, adapter)
    return hf, own_tokenizer


def _own_tokenizer(adapter: Path, tokenizer: Any) -> Any:
    """The tokenizer in the adapter's directory, else the base's; with the directory's template, else the base's."""
    from transformers import AutoTokenizer

    own = tokenizer
    if any((adapter / name).is_file() for name in TOKENIZER):
        own = AutoTokenizer.from_pretrained(str(adapter), trust_remote_code=False)
    elif (template := adapter / "chat_template.jinja").is_file():
        own.chat_template = template.read_text(encoding="utf-8")
    if own.chat_template is None:
        own.chat_template = tokenizer.chat_template
    return own


def _make_room(model: Any, tokenizer: Any, config: Any, weights: Mapping[str, "Tensor"], adapter: Path) -> None:
    """Give the embedding the rows that the adapter was trained with. To the base, a new row is the mean of its own.

    Raises:
        ValueError: the tokenizer has more tokens than there are rows, and the adapter's file has no rows for them.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    names = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if module in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    trained = max((len(value) for key, value in weights.items() if OF_PEFT.sub("", key) in names), default=rows)
    indices = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
    if isinstance(indices, Mapping):
        indices = [index for some in indices.values() for index in some]
    needed = max(rows, trained, *(index + 1 for index in indices), 0)
    if len(tokenizer) > needed:
        raise ValueError(
            f"The tokenizer in {str(adapter)!r} has {len(tokenizer)} tokens, the model has {rows} embeddings, and the adapter "
            "brings none for the tokens that were added. Save it with them (peft: modules_to_save, trainable_token_indices, "
            "or save_pretrained(..., save_embedding_layers=True))."
        )
    if needed > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
        with torch.no_grad():
            for module in (model.get_input_embeddings(), model.get_output_embeddings()):
                module.weight[rows:] = module.weight[:rows].float().mean(0).to(module.weight.dtype)


def _overwritten(model: Any, weights: Mapping[str, "Tensor"]) -> list[tuple[torch.nn.Parameter, "Tensor"]]:
    """The base's own weights that the adapter's file has others for, such as biases, with their values."""
    names = {OF_PEFT.sub("", key) for key in weights}
    return [(weight, weight.detach().clone()) for name, weight in model.named_parameters() if name in names]


def _check_all_used(peft_model: Any, weights: Mapping[str, "Tensor"]) -> None:
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        used = {OF_PEFT.sub("", key) for key in get_peft_model_state_dict(peft_model, save_embedding_layers=False)}
    base = {OF_PEFT.sub("", name) for name, _ in peft_model.named_parameters()}
    if unused := sorted(key for key in weights if OF_PEFT.sub("", key) not in used | base):
        raise LookupError(f"the model has no place for {unused[0]} and {len(unused) - 1} more")


def _not_of_this_base(error: Exception, adapter: Path, config: Any, base: str) -> Exception:
    """What peft could not fit into the model is most often the adapter of another one."""
    explained = unusable(str(adapter), "peft adapter", error)
    if not isinstance(explained, ValueError):
        return explained
    mismatch = re.search(r"size mismatch for (\S+):.*?\[([\d, ]+)\].*?\[([\d, ]+)\]", str(error), re.DOTALL)
    reason = " ".join(str(error).split()).rstrip(".")
    if mismatch is not None:
        name = OF_PEFT.sub("", mismatch[1])
        reason = f"{name} is [{mismatch[2]}] in the adapter and [{mismatch[3]}] in the model"
    named = config.base_model_name_or_path
    return ValueError(
        f"The adapter {str(adapter)!r} does not fit {base!r}: {reason}. It was trained on "
        f"{repr(named) if named else 'a base that it does not name'}; load it onto that model."
    )


def _warn_of_another_name(adapter: Path, config: Any, model: Any, base: str) -> None:
    """Shapes tell nothing of two models of one family, such as a base and its chat model."""
    named = str(config.base_model_name_or_path or "")
    own = {Path(name).name.lower() for name in (base, str(model.name_or_path))}
    if named and Path(named).name.lower() not in own and str(named) not in (base, str(model.name_or_path)):
        warn(
            f"The adapter {str(adapter)!r} says that its base is {named!r}, and the model is {base!r}. The shapes fit, but "
            "unless the two have the same weights, the adapter does something else here than where it was trained."
        )


def _remember_context(hf: Any, adapter: Path) -> None:
    """The chat context that a student of steerlens was trained in."""
    student = adapter / "student.json"
    if student.is_file():
        with reading(student):
            hf.config.chat_fingerprint = read_json(student)["chat_fingerprint"]
