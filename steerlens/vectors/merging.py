"""Write a vector into the weights: a bias at the output of a block's MLP adds it to every token."""

import copy
import re
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.arguments import checked
from steerlens.models.adapters import refuse_adapter
from steerlens.models.bridge import bridge
from steerlens.models.identity import forget_weights, model_name
from steerlens.models.unwrapping import weight_sharing_copy
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

FLAGS = ("mlp_bias", "use_bias", "bias")
"""Fields by which configurations give MLPs biases: Llama's, StarCoder 2's, Falcon's."""

EXACT = (
    "What is exact here: keep the vector's file beside the model, and steer(model, vector), which also acts on the Hugging "
    "Face model's own generate."
)


@checked
def merge_vector(model: "TransformerBridge", vector: SteeringVector, *, strength: float = 1.0) -> "TransformerBridge":
    """A model that is steered by its weights alone: h + strength v after every block of the vector, at every token.

    The vector becomes a bias of the MLP's last map, which the block adds to the residual as it is. `save_model` then
    writes a checkpoint that plain transformers load with the same logits, where the architecture's configuration knows
    such a bias: GPT-2, Pythia, GPT-J, Bloom and Phi have one, Llama (`mlp_bias`) and Falcon (`bias`) get one, with zeros
    for every other new bias.

    Returns:
        A bridge of its own. It shares every weight with `model` but the biases; `model` is left as it is.

    Raises:
        ValueError: the configuration has no place for the bias (Qwen, Mistral, Gemma, OLMo), the block does more with the
            MLP's output than adding it, the model carries an adapter, or the vector is another model's.

    Warns:
        UserWarning: the vector was fitted at some tokens only.
    """
    vector.check_model(model)
    refuse_adapter(model, "A merged vector would leave out what it has learned")
    plain = weight_sharing_copy(model)
    writers = {layer: _writer(model, plain, layer) for layer in vector.layers}
    if any(plain.get_submodule(name).bias is None for name in writers.values()):
        _add_biases(plain, set(writers.values()))
    for (layer, name), direction in zip(writers.items(), vector.directions, strict=True):
        scale = _check_adds(plain, model.blocks[layer].name, name)
        writer: Any = plain.get_submodule(name)
        bias = writer.bias.detach() + (strength / scale) * direction.to(writer.bias)
        writer.bias = nn.Parameter(bias, requires_grad=writer.bias.requires_grad)
    vector.source.warn_of_every_token("the merged model")
    forget_weights(plain)
    return bridge(plain, model.tokenizer, name=f"{model_name(model)}, steered")


def _writer(model: "TransformerBridge", plain: Any, layer: int) -> str:
    """The name of the last map of a block that writes vectors of the residual's width: its MLP's output."""
    from transformers.pytorch_utils import Conv1D

    block = model.blocks[layer].name
    widths = {
        name: module.out_features if isinstance(module, nn.Linear) else module.nf
        for name, module in plain.get_submodule(block).named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    writing = [name for name, width in widths.items() if width == model.cfg.d_model]
    if not writing:
        raise ValueError(f"Block {layer} of {model_name(model)!r} has no linear map into the residual. {EXACT}")
    return f"{block}.{writing[-1]}"


def _add_biases(plain: Any, needed: set[str]) -> None:
    """Give the model the biases that its configuration can have, all zero."""
    from transformers import AutoModelForCausalLM

    for flag in FLAGS:
        if getattr(plain.config, flag, None) is not False:
            continue
        config = copy.deepcopy(plain.config)
        setattr(config, flag, True)
        with torch.device("meta"):
            with_biases = AutoModelForCausalLM.from_config(config)
        own = {name for name, _ in plain.named_parameters(remove_duplicate=False)}
        new = {name for name, _ in with_biases.named_parameters(remove_duplicate=False)} - own
        if {f"{name}.bias" for name in needed} - own <= new and all(name.endswith(".bias") for name in new):
            for name in new:
                module = plain.get_submodule(name.removesuffix(".bias"))
                module.bias = nn.Parameter(module.weight.new_zeros(module.out_features), requires_grad=False)
            setattr(plain.config, flag, True)
            return
    raise ValueError(
        f"The configuration of {plain.config.model_type!r} has no bias at the output of an MLP, so that a saved checkpoint "
        f"would lose the vector. {EXACT}"
    )


@torch.no_grad()
def _check_adds(plain: Any, block: str, writer: str) -> float:
    """The factor with which the block adds what `writer` gives; 1 but in models with a residual multiplier.

    Something large is added to the writer's output, and has to come out of the block as it is. A norm between the two
    would change it.

    Raises:
        ValueError: it does not.
    """
    config = plain.config.get_text_config()
    scale = getattr(config, "residual_multiplier", None) or 1.0
    before = _block_output(plain, block, writer, None)
    direction = torch.randn(before.shape[-1], generator=torch.Generator().manual_seed(0)).to(before)
    added = 16 * before.norm(dim=-1).max() * torch.nn.functional.normalize(direction, dim=0)
    moved = _block_output(plain, block, writer, added) - before
    if not float(((moved - scale * added).norm(dim=-1) / (scale * added).norm()).max()) < 0.05:
        raise ValueError(
            f"In {plain.config.model_type!r} a block does not add what {re.sub(r'.*[.]', '', writer)} gives to the residual "
            f"as it is; a norm comes between, and a bias there is not the vector. {EXACT}"
        )
    return scale


def _block_output(
    plain: Any, block: str, writer: str, added: Float[Tensor, " d_model"] | None
) -> Float[Tensor, "pos d_model"]:
    """What a block gives for a few tokens, with something added to the output of one of its maps."""
    seen: list[Tensor] = []

    def add(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor | None:
        return None if added is None else output + added.to(output)

    def keep(_module: nn.Module, _inputs: tuple, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output)[0].float())

    hooks = [
        plain.get_submodule(writer).register_forward_hook(add),
        plain.get_submodule(block).register_forward_hook(keep),
    ]
    try:
        plain(input_ids=torch.arange(4, 12, device=plain.device)[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0]
