"""The bridge that `load_model` returns: TransformerLens' own, whose weights keep Hugging Face's names.

TransformerLens renames weights for the bridges that it builds itself, and leaves out what those do not have: of a
residual-only bridge, every attention and MLP. Import this module inside functions; transformer_lens takes seconds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from steerlens.models.adapters import refuse_adapter
from steerlens.models.unwrapping import unwrapped

WRAPPED = "_original_component."


class ResidualBridge(TransformerBridge):
    """A TransformerBridge whose state dict is the Hugging Face model's, name by name."""

    def state_dict(self, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The Hugging Face model's state dict, an adapter's weights included; as a part of a larger module, that part's."""
        if destination is not None or prefix:
            return super().state_dict(destination, prefix, keep_vars)
        return self.original_model.state_dict(keep_vars=keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Read what `state_dict` gave, into the weights in place.

        Raises:
            RuntimeError: a shape differs, or, if `strict`, names are missing or unknown.
        """
        try:
            found = self.original_model.load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise RuntimeError(str(error).replace(WRAPPED, "")) from error
        return type(found)(*([name.replace(WRAPPED, "") for name in names] for names in found))

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write weights and configuration as Hugging Face does; `steerlens.save_model` adds the tokenizer.

        Raises:
            ValueError: the model carries a peft adapter, which a plain checkpoint has no place for.
        """
        refuse_adapter(self, "A plain checkpoint has no place for it")
        with unwrapped(self.original_model):
            self.original_model.save_pretrained(save_directory, **options)  # pyright: ignore[reportCallIssue]

    def resize_token_embeddings(self, new_num_tokens: int | None = None, **options: Any) -> nn.Module:
        """Give embedding and unembedding another number of rows, as Hugging Face does; returns the embedding."""
        hf: Any = self.original_model
        with unwrapped(hf):
            hf.resize_token_embeddings(new_num_tokens, **options)
            embed, unembed = hf.get_input_embeddings(), hf.get_output_embeddings()
        if unembed._buffers.pop("bias", None) is not None:  # TransformerLens' zeros, of the old length
            unembed.register_parameter("bias", None)
        self.embed.set_original_component(embed)
        self.unembed.set_original_component(unembed)
        self.cfg.d_vocab = self.cfg.d_vocab_out = embed.weight.shape[0]
        keep_names(hf)
        return embed


def keep_names(model: nn.Module) -> None:
    """Give the weights of a wrapped Hugging Face model the names in its state dict that they have without bridge."""
    for module in model.modules():
        if isinstance(module, GeneralizedComponent) and not module._load_state_dict_pre_hooks:
            module.register_state_dict_post_hook(_without_wrapper)
            module.register_load_state_dict_pre_hook(_with_wrapper)
        if isinstance(module, nn.Linear) and "bias" in module._buffers:  # TransformerLens' zeros
            module._non_persistent_buffers_set.add("bias")


def _without_wrapper(_module: nn.Module, state_dict: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state_dict if name.startswith(prefix + WRAPPED)]:
        state_dict[prefix + name.removeprefix(prefix + WRAPPED)] = state_dict.pop(name)


def _with_wrapper(_module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        own = name.removeprefix(prefix).removeprefix(WRAPPED)
        state_dict[prefix + WRAPPED + own] = state_dict.pop(name)
