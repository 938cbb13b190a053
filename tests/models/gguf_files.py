"""A small GGUF file, written with the package that defines the format."""

import json
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlens.contract.architectures import save_checkpoint

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def write_gguf(directory: Path, kind: str = "F32", *, without: str | None = None) -> tuple[Path, Any, Any]:
    """A random Qwen 2 as a GGUF whose matrices are of `kind`, and the model and tokenizer that it was made from."""
    checkpoint = save_checkpoint("Qwen 2", directory / "checkpoint")
    model, tokenizer = (one.from_pretrained(checkpoint) for one in (AutoModelForCausalLM, AutoTokenizer))
    writer = GGUFWriter(directory / "model.gguf", "qwen2")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    for name, weight in model.state_dict().items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        if name == without:
            continue
        if weight.ndim == 1:
            writer.add_tensor(name, weight.numpy())
        else:
            quantised = GGMLQuantizationType[kind]
            writer.add_tensor(name, quantize(weight.numpy(), quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return directory / "model.gguf", model.eval(), tokenizer


def _add_tokenizer(writer: GGUFWriter, tokenizer: Any, size: int) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [*tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    special = set(tokenizer.added_tokens_decoder)
    types = [TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(len(tokens))]
    unused = size - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*tokens, *(f"[PAD{i}]" for i in range(unused))])
    writer.add_token_types([*types, *[TokenType.UNUSED] * unused])
    writer.add_token_merges([" ".join(merge) for merge in described["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
