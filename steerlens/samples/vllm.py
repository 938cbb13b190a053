"""Teachers that write through vLLM: the token ids of our own rendering go in, and every row has a seed of its own."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steerlens.checks import a_model
from steerlens.forward import check_length
from steerlens.generation import end_tokens, is_finished
from steerlens.models.adapters import has_adapter
from steerlens.models.bridge import huggingface_model, is_watched
from steerlens.models.identity import commit_hash, is_4bit, model_name, weights_are_as_loaded, weights_dtype
from steerlens.text.chat import Chat, encode_prompt

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class VllmEngine:
    """vLLM on the checkpoint that `model` was loaded from, for `sample_teacher(model, ..., engine=VllmEngine(model))`.

    It loads the weights a second time, in the same dtype, so `model` itself may stay on the CPU. It cannot steer. A row
    draws from (seed, row) alone, but vLLM rounds by batch, so rows of a repeated run can differ.

    Args:
        model: names the checkpoint, renders the chats, and says which tokens end a turn.
        options: further arguments of vllm.LLM, such as tensor_parallel_size, max_model_len or gpu_memory_utilization.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        ValueError: the model is not what its checkpoint holds: an adapter, 4-bit weights, trained since, never saved.
        RuntimeError: vLLM does not start.

    Reference: arXiv 2309.06180.
    """

    def __init__(self, model: "TransformerBridge", **options: Any) -> None:
        checkpoint = _checkpoint(a_model(model, "model"))
        self.model, self._vllm = model, _installed()
        try:
            self._llm = self._vllm.LLM(
                model=checkpoint, revision=commit_hash(model), dtype=weights_dtype(model), **options
            )
        except Exception as error:  # from any depth of an engine that looks for devices, memory and kernels
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeError(
                f"vLLM does not start on {checkpoint!r} ({reason}). It needs a GPU that it supports, with room for the "
                "weights: load the model here with device='cpu', or sample without engine."
            ) from error

    @property
    def name(self) -> str:
        """What the rows' source says of who wrote them."""
        return f"vllm {self._vllm.__version__}"

    def generate(
        self, chats: Sequence[Chat], *, max_new_tokens: int, temperature: float, seed: int, row_indices: Sequence[int]
    ) -> list[list[int]]:
        """Token ids of one completion for every chat, as `steerlens.generation.generate` gives them.

        Raises:
            ValueError: prompt and completion do not fit into the context, or the model is steered here.
        """
        if is_watched(self.model):
            raise ValueError(
                "Something steers or reads the model here, which vLLM does not see. Sample without engine."
            )
        prompts = [encode_prompt(self.model.tokenizer, chat) for chat in chats]
        check_length(self.model, max(map(len, prompts)) + max_new_tokens)
        ends = end_tokens(self.model).tolist()
        parameters = [
            self._vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                stop_token_ids=ends,
                seed=row_seed(seed, index),
                detokenize=False,
            )
            for index in row_indices
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        written = self._llm.generate(asked, parameters, use_tqdm=False)
        return [self._whole(list(answer.outputs[0].token_ids), max_new_tokens) for answer in written]

    def _whole(self, ids: list[int], max_new_tokens: int) -> list[int]:
        if len(ids) < max_new_tokens and not is_finished(self.model, ids):
            raise ValueError(
                f"vLLM cut a completion off after {len(ids)} of {max_new_tokens} tokens. Give it room: "
                "VllmEngine(model, max_model_len=...)."
            )
        return ids


def row_seed(seed: int, row: int) -> int:
    """A seed for one row: 63 bits of (`seed`, `row`), so that no two of many rows share theirs."""
    return int(np.random.default_rng([seed, row]).integers(2**63 - 1))


def _checkpoint(model: "TransformerBridge") -> str:
    """Directory or Hub name from which vLLM would load the same model."""
    name, path = model_name(model), huggingface_model(model).name_or_path
    if has_adapter(model):
        raise ValueError(
            f"{name!r} carries a peft adapter, which vLLM would not load. Merge it into the weights (peft's "
            "merge_and_unload, then save_pretrained) and load that directory, or sample without engine."
        )
    if is_4bit(model):
        raise ValueError(
            f"{name!r} has 4-bit weights, and vLLM would load those of the checkpoint. Load it without load_in_4bit, or "
            "sample without engine."
        )
    if not path or not weights_are_as_loaded(model):
        raise ValueError(
            f"The weights of {name!r} are not those of a checkpoint, which vLLM would load. Save the model (a student: "
            "student.save) and load that directory, or sample without engine."
        )
    return str(path)


def _installed() -> Any:
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"VllmEngine needs vLLM ({error}). Install it, on Linux with a GPU: pip install 'steerlens[vllm]'. Without "
            "engine, steerlens samples by itself."
        ) from error
