"""A merged vector is the steering, in plain transformers too; where no place for it is exact, it is refused."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from steerlens import load_model, merge_vector, save_model, steer
from steerlens.contract.architectures import save_checkpoint
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import model_name
from steerlens.vectors import merging
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

IDS = torch.tensor([[4, 5, 9, 6, 30, 12]])
WITH_A_PLACE = ("Llama 3", "Llama 3.2", "GPT-2", "Pythia", "GPT-J", "Bloom", "Falcon")
WITHOUT = ("Qwen 2.5", "Qwen 3", "Gemma 2", "Gemma 3", "OLMo 2", "OLMo 3", "Mistral", "Phi 3")


def vector_of(model, *layers: int) -> SteeringVector:
    directions = 4 * torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(1))
    return SteeringVector(layers, directions, VectorSource.of(model, method="random"))


@torch.no_grad()
def log_probs(hf) -> torch.Tensor:
    return hf(IDS, use_cache=False).logits.double().log_softmax(-1)


def divergence(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.exp() * (one - other)).sum(-1).max())


@pytest.mark.parametrize("family", WITH_A_PLACE)
def test_plain_transformers_loads_the_merged_model_and_gives_the_steered_logits(family, tmp_path):
    model = load_model(save_checkpoint(family, tmp_path / "base"), device="cpu")
    vector, before = vector_of(model, 0, 2), log_probs(huggingface_model(model))
    with steer(model, vector, strength=0.5):
        steered = log_probs(huggingface_model(model))
    assert divergence(steered, before) > 1e-2, "the control: the vector does something"
    merged = merge_vector(model, vector, strength=0.5)
    assert divergence(steered, log_probs(huggingface_model(merged))) < 1e-6
    save_model(merged, tmp_path / "merged")
    assert divergence(steered, log_probs(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval())) < 1e-6
    assert torch.equal(log_probs(huggingface_model(model)), before), "the model itself stays as it is"


@pytest.mark.parametrize("family", WITHOUT)
def test_a_configuration_without_a_place_is_refused_with_what_is_exact(family, tmp_path):
    model = load_model(save_checkpoint(family, tmp_path / "base"), device="cpu")
    before = log_probs(huggingface_model(model))
    with pytest.raises(ValueError, match=r"has no bias at the output of an MLP.*steer\(model, vector\)"):
        merge_vector(model, vector_of(model, 1))
    assert torch.equal(log_probs(huggingface_model(model)), before)


@pytest.mark.parametrize("family", ["Gemma 3", "OLMo 2"])
def test_a_norm_behind_the_mlp_is_noticed_whatever_the_configuration_says(family, tmp_path, monkeypatch):
    model = load_model(save_checkpoint(family, tmp_path / "base"), device="cpu")

    def as_if_it_had_biases(plain, needed: set[str]) -> None:
        for name in needed:
            plain.get_submodule(name).bias = torch.nn.Parameter(torch.zeros(model.cfg.d_model))

    monkeypatch.setattr(merging, "_add_biases", as_if_it_had_biases)
    with pytest.raises(ValueError, match="a norm comes between"):
        merge_vector(model, vector_of(model, 1))


def test_a_merged_model_is_another_model_for_its_vectors(tmp_path):
    model = load_model(save_checkpoint("Llama 3", tmp_path / "base"), device="cpu")
    vector = vector_of(model, 1)
    merged = merge_vector(model, vector)
    assert model_name(merged) == "base, steered"
    with pytest.raises(ValueError, match="fingerprint"):
        vector.check_model(merged)
    twice = merge_vector(merged, vector.for_model(merged))
    with steer(model, vector, strength=2):
        steered = log_probs(huggingface_model(model))
    assert divergence(steered, log_probs(huggingface_model(twice))) < 1e-6


def test_in_half_precision_the_merged_model_is_the_steered_one_within_rounding(tmp_path):
    model = load_model(save_checkpoint("Llama 3", tmp_path / "base"), device="cpu", dtype=torch.bfloat16)
    vector = vector_of(model, 1)
    with steer(model, vector):
        steered = log_probs(huggingface_model(model))
    merged = merge_vector(model, vector)
    assert (
        divergence(steered, log_probs(huggingface_model(merged)))
        < 1e-2
        < divergence(steered, log_probs(huggingface_model(model)))
    )
