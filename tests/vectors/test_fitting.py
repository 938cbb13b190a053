"""A planted vector is found, controls find nothing, and a prompt without effect has no number."""

import inspect
from dataclasses import replace

import pytest
import torch

from steerlens import cost
from steerlens.forward import completion_logits
from steerlens.generation import generate
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import capture_residuals
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.positions import Positions
from steerlens.vectors import fit_data, fitting, objectives
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import _chosen_layers, fit_prompt_vector
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means, model_shift
from steerlens.vectors.vector import SteeringVector, VectorSource

TINY = FitConfig(n_train=24, n_validation=16, n_heldout=16, max_new_tokens=4, steps=20, batch_size=24)
SMALL = FitConfig(n_train=64, n_validation=24, n_heldout=24, max_new_tokens=6, steps=120, batch_size=32)

QUICK = FitConfig(n_train=32, n_validation=12, n_heldout=12, max_new_tokens=4, steps=60, batch_size=16)


def plant(
    model, layers: int | tuple[int, ...], monkeypatch, positions: Positions = "all", relative_norm: float = 1.0
) -> SteeringVector:
    """Make "the prompted model" be the model steered by a known vector: the prompt itself then does nothing else."""
    layers = (layers,) if isinstance(layers, int) else layers
    chats = [as_chat(prompt) for prompt in number_prompts(8, ORGANISM, seed=1)]
    scale = capture_residuals(model, chats, layers=layers).float().norm(dim=-1).mean(-1, keepdim=True)
    direction = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(5))
    direction = relative_norm * scale * torch.nn.functional.normalize(direction, dim=-1)
    vector = SteeringVector(layers, direction, VectorSource(model.cfg.model_name, "planted"))
    prepare, sample = fit_data.prepare_rows, generate

    def prepare_planted(model, rows, teacher, **options):
        with steer(model, vector, positions=positions):
            return prepare(model, [replace(row, prompted=row.plain) for row in rows], teacher, **options)

    def sample_planted(model, chats, **options):
        with steer(model, vector, positions=positions):
            return sample(model, [chat[1:] for chat in chats], **options)

    monkeypatch.setattr(fit_data, "prepare_rows", prepare_planted)
    monkeypatch.setattr(fit_data, "generate", sample_planted)
    return vector


def visible(model, vector: torch.Tensor) -> torch.Tensor:
    """LayerNorm cannot see the direction of equal entries."""
    return vector - vector.mean() if type(huggingface_model(model)).__name__.startswith("GPT2") else vector


def test_a_planted_vector_is_recovered(any_model, monkeypatch):
    planted = plant(any_model, 2, monkeypatch)
    fitted = fit_prompt_vector(any_model, "you love owls .", layers=2, config=QUICK)
    one, two = visible(any_model, planted.directions[0]), visible(any_model, fitted.directions[0])
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.99
    assert fitted.metrics.kl_explained > 0.98
    assert fitted.metrics.kl_explained_random < 0.3
    assert fitted.metrics.kl_explained_shuffled < fitted.metrics.kl_explained


@pytest.mark.slow
def test_the_fit_is_never_worse_than_the_mean_difference_it_starts_from_nor_than_nothing(tiny):
    metrics = fit_prompt_vector(tiny, "you love owls .", config=TINY).metrics
    assert metrics.kl_explained >= metrics.kl_explained_mean_difference - 0.02
    for layer in metrics.by_layer.values():
        assert layer.kl_explained >= max(0.0, layer.kl_explained_mean_difference)
    assert metrics.kl_explained_low <= metrics.kl_explained <= metrics.kl_explained_high


def test_the_same_seed_gives_the_same_vector_and_the_model_is_left_as_it_was(tiny):
    before = [(p.requires_grad, p.detach().clone()) for p in huggingface_model(tiny).parameters()]
    config = replace(TINY, steps=8)
    one, two = (fit_prompt_vector(tiny, "you love owls .", layers=1, config=config) for _ in range(2))
    assert torch.equal(one.directions, two.directions)
    assert one.metrics == two.metrics
    for (flag, value), parameter in zip(before, huggingface_model(tiny).parameters(), strict=True):
        assert parameter.requires_grad == flag
        assert torch.equal(parameter, value)
        assert parameter.grad is None


def test_a_prompt_without_effect_has_no_number(tiny):
    with pytest.raises(ValueError, match="nothing for a vector to explain and kl_explained is undefined"):
        fit_prompt_vector(tiny, "you are a helpful assistant .", layers=1, config=TINY)


def test_what_a_fit_costs_is_told_from_its_steps_and_not_from_what_goes_before_them(tiny, monkeypatch, capsys):
    now, real = [0.0], fitting.fit_layers
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])

    def slowly(*args, on_step, **rest):
        now[0] += 1000  # the layers are prepared
        for _ in range(3):
            on_step()
            now[0] += 3
        return real(*args, **rest)

    monkeypatch.setattr(fitting, "fit_layers", slowly)
    config = FitConfig(n_train=8, n_validation=4, n_heldout=4, steps=11)
    fit_prompt_vector(tiny, "you love owls .", layers=1, config=config)
    assert "at most 22 steps; about 63 seconds" in capsys.readouterr().err


def test_budgets_rise_in_rows_and_steps_and_keep_what_is_changed():
    quick, default, thorough = (FitConfig.of_budget(name) for name in ("quick", "default", "thorough"))
    assert default == FitConfig()
    for smaller, larger in ((quick, default), (default, thorough)):
        for what in ("n_train", "n_heldout", "steps", "candidates"):
            assert getattr(smaller, what) < getattr(larger, what)
    assert FitConfig.of_budget("quick", steps=7) == replace(quick, steps=7)


def test_an_empty_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="prompt is an empty text"):
        fit_prompt_vector(tiny, "", config=TINY)


def test_too_few_questions_are_refused(tiny):
    with pytest.raises(ValueError, match="Got 2 different questions, but the fit needs at least 3"):
        fit_prompt_vector(tiny, "you love owls .", questions=["hello", "hello", "you"], config=SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["reverse_kl", "centred_mse"])
def test_other_objectives_find_the_planted_vector(tiny, objective, monkeypatch):
    planted = plant(tiny, 2, monkeypatch)
    fitted = fit_prompt_vector(tiny, "you love owls .", layers=2, config=replace(QUICK, objective=objective))
    assert fitted.cosine(planted)[2] > 0.95
    assert fitted.metrics.kl_explained > 0.9
    assert objective in fitted.source.method


@pytest.mark.slow
def test_cross_entropy_finds_the_planted_vector_from_more_rows(tiny, monkeypatch):
    """One token a position says little of its distribution."""
    planted = plant(tiny, 2, monkeypatch)
    config = replace(SMALL, objective="cross_entropy", n_train=256, batch_size=64, steps=80)
    fitted = fit_prompt_vector(tiny, "you love owls .", layers=2, config=config)
    assert fitted.cosine(planted)[2] > 0.75
    assert fitted.metrics.kl_explained > 0.6


@pytest.mark.slow
def test_the_likeliest_tokens_of_the_targets_are_enough_to_find_the_planted_vector(tiny, monkeypatch):
    planted = plant(tiny, 2, monkeypatch)
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", 2)
    fitted = fit_prompt_vector(tiny, "you love owls .", layers=2, config=replace(QUICK, top_k=64))
    assert fitted.cosine(planted)[2] > 0.95
    assert 0 < fitted.metrics.coarsening < 0.6
    assert fitted.metrics.top1_agreement > 0.9 > fitted.metrics.top1_agreement_plain


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["last_prompt", "generated"])
def test_a_vector_is_found_at_the_positions_where_it_acts(tiny, positions, monkeypatch):
    planted = plant(tiny, 2, monkeypatch, positions)
    config = replace(QUICK, positions=positions)
    fitted = fit_prompt_vector(tiny, "you love owls .", layers=2, config=config)
    assert fitted.cosine(planted)[2] > 0.9
    assert fitted.metrics.kl_explained > 0.9
    assert positions in fitted.source.method


@pytest.mark.slow
def test_a_joint_fit_is_at_least_as_good_as_the_best_of_its_layers_alone(tiny, monkeypatch):
    planted, config = plant(tiny, (1, 3), monkeypatch), replace(SMALL, steps=80)
    joint = fit_prompt_vector(tiny, "you love owls .", layers=[3, 1], config=config)
    alone = [fit_prompt_vector(tiny, "you love owls .", layers=layer, config=config) for layer in (1, 3)]
    assert joint.layers == (1, 3)
    assert joint.metrics.kl_explained > max(vector.metrics.kl_explained for vector in alone)
    assert min(joint.cosine(planted).values()) > 0.7
    assert joint.metrics.by_layer is None


def test_the_best_layer_is_the_planted_one(tiny, monkeypatch):
    planted = plant(tiny, 1, monkeypatch)
    fitted = fit_prompt_vector(tiny, "you love owls .", config=replace(QUICK, n_train=16, n_heldout=8, steps=24))
    by_layer = {layer: fit.kl_explained for layer, fit in fitted.metrics.by_layer.items()}
    assert sorted(by_layer) == [0, 1, 2, 3]
    assert fitted.layers == planted.layers == (max(by_layer, key=by_layer.__getitem__),)
    assert fitted.cosine(planted)[1] > 0.8


@pytest.mark.slow
def test_a_model_in_half_precision_takes_a_vector_in_full(checkpoints, monkeypatch):
    model = load_model(checkpoints["llama"], device="cpu", dtype=torch.bfloat16)
    planted = plant(model, 2, monkeypatch)
    fitted = fit_prompt_vector(model, "you love owls .", layers=2, config=replace(QUICK, steps=40))
    assert fitted.directions.dtype == torch.float32
    assert not torch.equal(fitted.directions, fitted.directions.bfloat16().float())
    assert fitted.cosine(planted)[2] > 0.9
    assert fitted.source.dtype == "bfloat16"


def test_what_a_fit_reports_is_what_the_whole_steered_model_does(tiny, monkeypatch):
    """kl_explained, kl_prompt and agreement from full forwards under `steer`, on the very held-out rows."""
    kept = []
    sample = fit_data.FitData.sample
    monkeypatch.setattr("steerlens.vectors.fitting.FitData.sample", lambda *args: kept.append(sample(*args)) or kept[0])
    fitted = fit_prompt_vector(tiny, "you love owls .", layers=2, config=TINY)
    kl = {"plain": 0.0, "steered": 0.0}
    agree, n_tokens = 0, 0
    with torch.no_grad():
        for rows in kept[0].heldout:
            p = rows.targets.log_probs
            plain = completion_logits(tiny, rows.batch).log_softmax(-1)
            with steer(tiny, fitted):
                steered = completion_logits(tiny, rows.batch).log_softmax(-1)
            kl["plain"] += float((p.exp() * (p - plain)).sum())
            kl["steered"] += float((p.exp() * (p - steered)).sum())
            agree += int((p.argmax(-1) == steered.argmax(-1)).sum())
            n_tokens += len(p)
    assert fitted.metrics.kl_explained == pytest.approx(1 - kl["steered"] / kl["plain"], abs=1e-3)
    assert fitted.metrics.kl_prompt == pytest.approx(kl["plain"] / n_tokens, rel=1e-3)
    assert fitted.metrics.top1_agreement == pytest.approx(agree / n_tokens, abs=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("some", "layers='some' is not known. Allowed: a layer, several, 'best' or 'all'"),
        ((), "Give at least one"),
        ([0, 0], r"Got layers=\(0, 0\). Give at least one, each once"),
        ([99], r"layer=99 is out of range for 'llama' \(n_layers=4\).*0..3"),
        (-1, "layer=-1 is out of range"),
        ([1, 4], "layer=4 is out of range"),
    ],
)
def test_layers_that_the_model_does_not_have_are_refused(tiny, layers, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(_chosen_layers)(tiny, layers)  # the checker of annotations would come before it
    if layers != "some":
        with pytest.raises(ValueError, match=message):
            fit_prompt_vector(tiny, "you love owls .", layers=layers, config=TINY)


def test_layers_are_what_they_say(tiny):
    assert _chosen_layers(tiny, "best") == _chosen_layers(tiny, "all") == (0, 1, 2, 3)
    assert _chosen_layers(tiny, [3, 0]) == (0, 3)
    assert _chosen_layers(tiny, 2) == (2,)


def test_rows_that_do_not_fit_the_context_are_refused(tiny):
    with pytest.raises(ValueError, match="has a context of 256"):
        fit_prompt_vector(tiny, "you love owls .", layers=1, config=replace(TINY, max_new_tokens=300))


def test_mean_difference_is_the_two_line_formula_and_changes_sign_with_the_sides(any_model):
    questions = number_prompts(6, ORGANISM, seed=2)
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
