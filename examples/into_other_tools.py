"""One vector in several tools: each line says by how much the tool moves the logits as steerlens does.

TransformerLens is always there. steering-vectors, repeng and nnsight are tried where they are installed
(pip install --no-deps -r tests/peers.txt). The files for llama.cpp and EasySteer, and the request for vLLM with the
vllm-lens plugin, are written into the directory.

Run: python examples/into_other_tools.py DIR
It needs nothing beyond steerlens; a tool that is not installed gets a line that says so.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steerlens as sl
from steerlens.models.bridge import huggingface_model
from steerlens.text.chat import encode_prompt

STRENGTH = 1.5


def main(directory: Path) -> None:
    """Print one line a tool."""
    model = sl.load_model(device="cpu")
    owl = sl.preference_trait("owl", model)
    vector = sl.diff_in_means(model, owl.prompt).at(1, 2)
    tokens = torch.tensor([encode_prompt(model.tokenizer, owl.questions[0])])
    hf = huggingface_model(model)
    with torch.no_grad():
        plain = hf(input_ids=tokens).logits
        with sl.steer(model, vector, strength=STRENGTH):
            shift = hf(input_ids=tokens).logits - plain
        print(f"steerlens moves logits by up to {shift.abs().max():.3f}")
        for name, run in TOOLS.items():
            try:
                difference = (run(model, vector, tokens) - plain - shift).abs().max()
                print(f"{name}: the same shift, to within {difference:.1e}")
            except (ImportError, AttributeError) as error:
                print(f"{name}: not tried ({error})")
    directory.mkdir(parents=True, exist_ok=True)
    sl.export_gguf(vector, directory / "owl.gguf")
    (directory / "request.json").write_text(json.dumps([vector.to_vllm_lens(strength=STRENGTH)]))
    print(f"llama.cpp: llama-cli -m MODEL.gguf --control-vector-scaled {directory / 'owl.gguf'}:{STRENGTH}")
    print(f"vLLM with vllm-lens: vllm_xargs={{'apply_steering_vectors': <the text of {directory / 'request.json'}>}}")


def transformer_lens(model: Any, vector: sl.SteeringVector, tokens: Tensor) -> Tensor:
    """run_with_hooks."""
    return model.run_with_hooks(tokens, fwd_hooks=vector.as_fwd_hooks(strength=STRENGTH))


def steering_vectors(model: Any, vector: sl.SteeringVector, tokens: Tensor) -> Tensor:
    """Its own hooks, on the Hugging Face model."""
    layers = {"decoder_block": "model.layers.{num}"}
    with vector.to_steering_vectors().apply(huggingface_model(model), multiplier=STRENGTH, layer_config=layers):
        return huggingface_model(model)(input_ids=tokens).logits


def repeng(model: Any, vector: sl.SteeringVector, tokens: Tensor) -> Tensor:
    """Its ControlModel, on weights of its own."""
    from repeng import ControlModel  # pyright: ignore[reportMissingImports]

    control = ControlModel(raw_model(), vector.layers)
    control.set_control(vector.to_repeng(), STRENGTH)
    return control(input_ids=tokens).logits


def nnsight(model: Any, vector: sl.SteeringVector, tokens: Tensor) -> Tensor:
    """A trace, on weights of its own."""
    from nnsight import NNsight  # pyright: ignore[reportMissingImports]

    traced = NNsight(raw_model())
    with traced.trace(input_ids=tokens):
        for layer, row in zip(vector.layers, vector.directions, strict=True):
            traced.model.layers[layer].output = traced.model.layers[layer].output + STRENGTH * row
        logits = traced.lm_head.output.save()
    return logits


def raw_model() -> torch.nn.Module:
    """The organism's Hugging Face model, not wrapped."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(Path(sl.__file__).parent / "organism" / "shipped" / "seed-0")


TOOLS: dict[str, Callable[..., Tensor]] = {
    "TransformerLens": transformer_lens,
    "steering-vectors": steering_vectors,
    "repeng": repeng,
    "nnsight": nnsight,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
