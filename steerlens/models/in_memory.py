"""Wrap a Hugging Face model that is in memory already."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.checks import WrongInput, shown
from steerlens.models.adapters import base_of
from steerlens.models.bridge import bridge, is_wrapped

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def wrap_model(hf_model: Any, tokenizer: Any, *, name: str | None = None) -> "TransformerBridge":
    """What `load_model` returns, around a model that is in memory already.

    The model is wrapped in place and put into eval mode: its own forward, `generate`, `state_dict` and `save_pretrained`
    go on as before, and steering acts on them. Its dtype and device stay. Of a PeftModel, the base with the adapter in it
    is wrapped, so that `adapter_disabled` can switch the adapter off.

    Args:
        hf_model: a causal language model of transformers, such as `AutoModelForCausalLM.from_pretrained` gives, or peft's
            PeftModel around one.
        tokenizer: its tokenizer, with the chat template that chats are to be rendered with.
        name: that artifacts carry; by default the model's own `name_or_path`.

    Raises:
        WrongInput: the model or the tokenizer is something else; says what.
        ValueError: the model is wrapped already, is no causal language model, has fewer embeddings than the tokenizer has
            tokens, has an adapter that is refused, or is of an architecture that TransformerLens does not know.
    """
    from peft import PeftModel

    model = base_of(hf_model) if isinstance(hf_model, PeftModel) else hf_model
    _check_model(model)
    _check_tokenizer(tokenizer, model)
    if name is None:
        name = _name(str(model.name_or_path)) or type(model).__name__
    return bridge(model, tokenizer, name=name)


def _name(path: str) -> str:
    return Path(path).resolve().name if Path(path).is_dir() else path


def _check_model(model: Any) -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

    if isinstance(model, TransformerBridge) or (isinstance(model, PreTrainedModel) and is_wrapped(model)):
        raise ValueError(
            "The model is wrapped already. Use the bridge that load_model, wrap_model or boot_transformers gave; a second one "
            "around the same modules would make every hook fire twice."
        )
    if not isinstance(model, PreTrainedModel):
        raise WrongInput(
            f"wrap_model got {shown(model)} for a model. It takes a transformers model that is loaded, such as "
            "AutoModelForCausalLM.from_pretrained(name) gives; a name or a directory goes to load_model."
        )
    if not model.can_generate() or model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ValueError(
            f"wrap_model got a {type(model).__name__}, which is no causal language model with an unembedding. Load it with "
            "AutoModelForCausalLM."
        )


def _check_tokenizer(tokenizer: Any, model: Any) -> None:
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        own = " Of a processor, give processor.tokenizer." if hasattr(tokenizer, "tokenizer") else ""
        raise WrongInput(
            f"wrap_model got {shown(tokenizer)} for a tokenizer. It takes one that is loaded, such as "
            f"AutoTokenizer.from_pretrained(name) gives.{own}"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings. Give the model's own tokenizer, or "
            "model.resize_token_embeddings(len(tokenizer)) first and train the new rows."
        )
