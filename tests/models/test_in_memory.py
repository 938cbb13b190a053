"""A model that is in memory is wrapped as a loaded one is, and what is no model is named."""

import copy

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from steerlens import steer, wrap_model
from steerlens.generation import generate
from steerlens.models.adapters import adapter_disabled
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import model_name, weights_fingerprint
from steerlens.residuals.capture import capture_residuals
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

IDS = torch.tensor([[4, 5, 9, 6]])


@pytest.fixture
def raw(checkpoints):
    return AutoModelForCausalLM.from_pretrained(checkpoints["llama"])


def test_a_model_in_memory_does_what_the_same_model_does_loaded(raw, tiny, chats):
    model = wrap_model(raw, tiny.tokenizer)
    assert (model_name(model), weights_fingerprint(model)) == (model_name(tiny), weights_fingerprint(tiny))
    vector = SteeringVector((1,), torch.ones(1, 32), VectorSource.of(tiny, method="ones"))
    with steer(model, vector), steer(tiny, vector):
        assert torch.equal(capture_residuals(model, chats, layers=[3]), capture_residuals(tiny, chats, layers=[3]))
        assert generate(model, chats, max_new_tokens=4) == generate(tiny, chats, max_new_tokens=4)


def test_the_models_own_forward_is_steered_and_is_as_before_afterwards(raw, tiny):
    plain = copy.deepcopy(raw)(IDS).logits
    model = wrap_model(raw, tiny.tokenizer, name="mine")
    with steer(model, SteeringVector((1,), torch.ones(1, 32), VectorSource("mine", "ones"))):
        assert not torch.allclose(raw(IDS).logits, plain)
    assert torch.equal(raw(IDS).logits, plain)


def test_a_peft_model_is_wrapped_with_its_adapter(raw, tiny):
    plain = copy.deepcopy(raw)(IDS).logits
    peft_model = get_peft_model(raw, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted = peft_model.eval()(input_ids=IDS).logits
    model = wrap_model(peft_model, tiny.tokenizer)
    assert torch.equal(huggingface_model(model)(IDS).logits, adapted)
    assert not torch.allclose(adapted, plain)
    with adapter_disabled(model):
        assert torch.equal(huggingface_model(model)(IDS).logits, plain)


def test_a_second_wrapping_is_refused(raw, tiny):
    model = wrap_model(raw, tiny.tokenizer)
    for wrapped in (model, raw):
        with pytest.raises(ValueError, match="is wrapped already"):
            wrap_model(wrapped, tiny.tokenizer)


def not_a_model(checkpoints):
    return str(checkpoints["llama"])


def without_unembedding(checkpoints):
    return AutoModel.from_pretrained(checkpoints["llama"])


def an_encoder(_checkpoints):
    return BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))


def prompt_tuning(checkpoints):
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    return get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (not_a_model, TypeError, r"got '.* \(str\) for a model.*a name or a directory goes to load_model"),
        (lambda _: None, TypeError, r"got None \(NoneType\) for a model"),
        (lambda _: torch.nn.Linear(2, 2), TypeError, r"got Linear.* \(Linear\) for a model"),
        (without_unembedding, ValueError, "got a LlamaModel, which is no causal language model"),
        (an_encoder, ValueError, "got a BertModel, which is no causal"),
        (prompt_tuning, ValueError, "kind is PROMPT_TUNING"),
    ],
)
def test_what_is_no_causal_model_is_named(make, kind, said, checkpoints, tiny):
    with pytest.raises(kind, match=said):
        wrap_model(make(checkpoints), tiny.tokenizer)


def test_what_is_no_tokenizer_of_the_model_is_named(raw, tiny):
    with pytest.raises(TypeError, match=r"got 'llama' \(str\) for a tokenizer.*AutoTokenizer"):
        wrap_model(raw, "llama")
    larger = copy.deepcopy(tiny.tokenizer)
    larger.add_tokens([f"<{i}>" for i in range(30)])
    with pytest.raises(ValueError, match=r"has \d+ tokens and the model \d+ embeddings"):
        wrap_model(raw, larger)


def test_a_tokenizer_of_the_models_own_directory_fits(raw, checkpoints):
    assert wrap_model(raw, AutoTokenizer.from_pretrained(checkpoints["llama"])).tokenizer is not None
