"""A planted vector is found, controls find nothing, and a prompt without effect has no number."""

from dataclasses import replace

import pytest
import torch

from steerlens.forward import generate
from steerlens.models import huggingface_model
from steerlens.prompts.chat import as_chat, encode_prompt
from steerlens.prompts.numbers import number_prompts
from steerlens.residuals.capture import capture_residuals
from steerlens.vectors import fit_data
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import fit_prompt_vector
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means, model_shift
from steerlens.vectors.vector import SteeringVector, VectorSource

TINY = FitConfig(n_train=24, n_validation=16, n_heldout=16, max_new_tokens=4, steps=20, batch_size=24)
SMALL = FitConfig(n_train=64, n_validation=24, n_heldout=24, max_new_tokens=6, steps=120, batch_size=32)


def plant(model, layer: int, monkeypatch) -> SteeringVector:
    """Make "the prompted model" be the model steered by a known vector: the prompt itself then does nothing else."""
    scale = (
        capture_residuals(model, [as_chat(p) for p in number_prompts(8, seed=1)], layers=[layer]).norm(dim=-1).mean()
    )
    direction = torch.nn.functional.normalize(
        torch.randn(1, model.cfg.d_model, generator=torch.Generator().manual_seed(5)), dim=-1
    )
    vector = SteeringVector((layer,), scale * direction, VectorSource(model.cfg.model_name, "planted"))
    prepare, sample = fit_data.prepare_rows, generate

    def prepare_planted(model, rows, *, top_k):
        with steer(model, vector):
            return prepare(model, [replace(row, prompted=row.plain) for row in rows], top_k=top_k)

    def sample_planted(model, chats, **options):
        with steer(model, vector):
            return sample(model, [chat[1:] for chat in chats], **options)

    monkeypatch.setattr(fit_data, "prepare_rows", prepare_planted)
    monkeypatch.setattr(fit_data, "generate", sample_planted)
    return vector


def visible(model, vector: torch.Tensor) -> torch.Tensor:
    """LayerNorm cannot see the direction of equal entries."""
    return vector - vector.mean() if type(huggingface_model(model)).__name__.startswith("GPT2") else vector


def test_a_planted_vector_is_recovered(any_model, monkeypatch):
    planted = plant(any_model, 2, monkeypatch)
    fitted = fit_prompt_vector(any_model, "you love owls .", layers=2, config=SMALL)
    one, two = visible(any_model, planted.directions[0]), visible(any_model, fitted.directions[0])
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.99
    assert fitted.metrics["kl_explained"] > 0.98
    assert fitted.metrics["kl_explained_random"] < 0.3
    assert fitted.metrics["kl_explained_shuffled"] < fitted.metrics["kl_explained"]


def test_the_fit_is_never_worse_than_the_mean_difference_it_starts_from_nor_than_nothing(tiny):
    metrics = fit_prompt_vector(tiny, "you love owls .", config=TINY).metrics
    assert metrics["kl_explained"] >= metrics["kl_explained_mean_difference"] - 0.02
    for layer in metrics["by_layer"].values():
        assert layer["kl_explained"] >= max(0.0, layer["kl_explained_mean_difference"])
    assert metrics["kl_explained_low"] <= metrics["kl_explained"] <= metrics["kl_explained_high"]


def test_the_same_seed_gives_the_same_vector_and_the_model_is_left_as_it_was(tiny):
    before = [(p.requires_grad, p.detach().clone()) for p in huggingface_model(tiny).parameters()]
    one, two = (fit_prompt_vector(tiny, "you love owls .", layers=1, config=TINY) for _ in range(2))
    assert torch.equal(one.directions, two.directions)
    assert one.metrics == two.metrics
    for (flag, value), parameter in zip(before, huggingface_model(tiny).parameters(), strict=True):
        assert parameter.requires_grad == flag
        assert torch.equal(parameter, value)
        assert parameter.grad is None


def test_a_prompt_without_effect_has_no_number(tiny):
    with pytest.raises(ValueError, match="nothing for a vector to explain and kl_explained is undefined"):
        fit_prompt_vector(tiny, "you are a helpful assistant .", layers=1, config=TINY)


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="The system message is empty"):
        fit_prompt_vector(tiny, "", config=TINY)


def test_too_few_questions_are_refused(tiny):
    with pytest.raises(ValueError, match="Got 2 different questions, but the fit needs at least 3"):
        fit_prompt_vector(tiny, "you love owls .", questions=["hello", "hello", "you"], config=SMALL)


def test_mean_difference_is_the_two_line_formula_and_changes_sign_with_the_sides(any_model):
    questions = number_prompts(6, seed=2)
    vector = diff_in_means(any_model, "you love owls .", questions=questions, layers=[0, 2])

    def by_hand(system_prompt):
        prompts = [encode_prompt(any_model.tokenizer, as_chat(q, system_prompt)) for q in questions]
        with torch.no_grad():
            states = [
                huggingface_model(any_model)(input_ids=torch.tensor([p]), output_hidden_states=True).hidden_states
                for p in prompts
            ]
        return torch.stack([torch.stack([s[1][0, -1], s[3][0, -1]]) for s in states]).mean(0)

    torch.testing.assert_close(vector.directions, by_hand("you love owls .") - by_hand(None), atol=1e-3, rtol=1e-3)


def test_a_model_has_not_shifted_from_itself(tiny, chats):
    assert model_shift(tiny, tiny, chats).directions.abs().max() == 0
