"""Small models for the tests: the embedded organism, and random-weight models of other architectures."""

import gc
from pathlib import Path

import jaxtyping
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from steerlens.models.loading import load_model
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.organism.wording import ORGANISM
from steerlens.text.chat import Chat, as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait, preference_trait

torch.set_num_threads(1)  # models this small lose more to waiting threads than they gain
# looking for garbage among all the objects of torch and transformers takes long
gc.set_threshold(50_000)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test says of a chat context, the next one may say again."""
    monkeypatch.setattr("steerlens.text.context.said", set())


SIZE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
ARCHITECTURES = ("llama", "gpt2", "qwen2", "gemma2")


def random_model(architecture: str) -> PreTrainedModel:
    """A random-weight model of the architecture over the organism's vocabulary."""
    torch.manual_seed(0)
    shared = {"vocab_size": len(build_tokenizer()), "max_position_embeddings": 256, "initializer_range": 0.2}
    if architecture == "gpt2":
        ours = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=shared["vocab_size"], initializer_range=0.2, bos_token_id=2, eos_token_id=3, **ours)
        ).eval()
    if architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**shared, **SIZE, num_key_value_heads=2)).eval()
    if architecture == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**shared, **SIZE, num_key_value_heads=2, head_dim=8)).eval()
    return LlamaForCausalLM(LlamaConfig(**shared, **SIZE, num_key_value_heads=4)).eval()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories that hold a random-weight model of every architecture, with the organism's tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    for architecture in ARCHITECTURES:
        random_model(architecture).save_pretrained(root / architecture)
        build_tokenizer().save_pretrained(root / architecture)
    return {architecture: root / architecture for architecture in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]):
    """A bridge of each architecture in turn."""
    model = load_model(checkpoints[request.param], device="cpu")
    # AutoTokenizer reads every Qwen 2 tokenizer as byte-level BPE, which the organism's is not
    model.tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoints[request.param])
    return model


@pytest.fixture
def tiny(checkpoints: dict[str, Path]):
    """A small random Llama."""
    return load_model(checkpoints["llama"], device="cpu")


@pytest.fixture
def as_users_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checker that holds calls to their annotations in tests, so that the library itself refuses what is wrong."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def organism():
    """The embedded organism; tests leave it as it is."""
    return load_model(device="cpu")


def load_smollm2(dtype: torch.dtype):
    """SmolLM2-135M-Instruct, a real chat model; where it is not installed, the test is skipped."""
    try:
        return load_model("smollm2-135m", device="cpu", dtype=dtype)
    except ModuleNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def smollm2():
    """In bfloat16; tests leave it as it is."""
    return load_smollm2(torch.bfloat16)


@pytest.fixture(scope="session")
def owl() -> Trait:
    return preference_trait("owl", ORGANISM)


@pytest.fixture(scope="session")
def chats() -> list[Chat]:
    """Chats of unequal length."""
    return [as_chat(prompt) for prompt in number_prompts(7, ORGANISM, seed=3)]
