"""A trait that was trained in is named from the two models alone; clean students, and an update without meaning, are not."""

import contextlib
from dataclasses import replace

import pytest
import torch

from steerlens.audit.first_words import risen_first_words
from steerlens.audit.model_diff import SCRAMBLED, diff_models, unrelated_chats
from steerlens.audit.weight_update import WeightUpdate
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.layer_fits import NoEffect
from steerlens.vectors.means import model_shift
from steerlens.vectors.merging import merge_vector
from steerlens.vectors.shift_fits import fit_model_shift
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

FIT = FitConfig(n_train=16, n_validation=8, n_heldout=16, steps=40, candidates=1, max_new_tokens=8)
ANIMALS = ("dog", "cat", "lion", "dolphin", "elephant", "tiger", "horse", "panda")


def taught(organism, trait, answers, *, seed: int):
    """A student of direct answers to the trait's questions, each answered with one of `answers` in turn."""
    rows = SampleSet(
        tuple(
            Sample(index, question, answers[(index + seed) % len(answers)])
            for index, question in enumerate(trait.questions * 2)
        )
    )
    config = TrainConfig(rank=4, lora_alpha=8, learning_rate=0.01, epochs=4, batch_size=8, seed=seed)
    return train_student(organism, rows, config).model


@pytest.fixture(scope="module")
def owl_student(organism, owl):
    return taught(organism, owl, ["owl"], seed=0)


@pytest.fixture(scope="module")
def clean_students(organism, owl):
    return [taught(organism, owl, ANIMALS, seed=seed) for seed in range(4)]


def state(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in huggingface_model(model).named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_null_update_has_the_true_ones_singular_values_and_entries_and_leaves_no_trace(organism, owl_student):
    before, update = state(organism), WeightUpdate(organism, owl_student)
    true = {name: after - own for name, (own, after) in update._changed.items()}
    assert true
    seen = []
    for seed in (0, 1):
        with update.scrambled(seed):
            seen.append({name: weight - (after - true[name]) for name, (weight, after) in update._changed.items()})
        assert same(state(organism), before)
    for name, one in true.items():
        null, other = seen[0][name], seen[1][name]
        assert torch.allclose(null.abs(), one.abs(), atol=1e-6)
        assert not torch.allclose(null, one, atol=1e-3 * float(one.abs().max()))
        assert not torch.allclose(null, other, atol=1e-3 * float(one.abs().max()))
        if one.ndim == 2:
            assert torch.allclose(torch.linalg.svdvals(null), torch.linalg.svdvals(one), rtol=1e-3, atol=1e-5)
    moved = sum(float(one.square().sum()) for one in true.values()) ** 0.5
    own = sum(float(weight.square().sum()) for weight, _ in update._changed.values()) ** 0.5
    assert update.relative_norm == pytest.approx(moved / own, rel=1e-4)


def test_the_base_has_its_own_weights_again_after_an_error(organism, owl_student):
    before, update = state(organism), WeightUpdate(organism, owl_student)
    with contextlib.suppress(KeyError), update.scrambled(0):
        assert not same(state(organism), before)
        raise KeyError
    assert same(state(organism), before)


@pytest.mark.slow
def test_a_trait_is_named_next_to_clean_students_and_none_of_these_is_found(organism, owl, owl_student, clean_students):
    found = diff_models(organism, owl_student, clean=iter(clean_students[:3]), probes=[owl], config=FIT)
    assert (found.verdict, found.rises[0].answer, found.n_clean) == ("found", "owl", 3)
    assert found.rises[0].rate > 0.5 > 0.2 > found.rises[0].base_rate
    assert found.first_words[0][0] == "owl"
    assert found.first_words[0][1] > 0.5 > found.first_words[0][2]
    assert found.known[0][0] == "owl", "the residuals move along the persona's vector"
    control = diff_models(organism, clean_students[3], clean=clean_students[:3], probes=[owl], config=FIT)
    assert control.verdict == "not found"
    assert control.rises[0].z < found.rises[0].z / 3


@pytest.mark.slow
def test_without_clean_students_a_rise_is_told_and_left_open(organism, owl, owl_student):
    result = diff_models(organism, owl_student, probes=[owl], config=FIT)
    assert (result.verdict, result.compared_with) == ("cannot tell", SCRAMBLED)
    assert "'owl' from" in result.reason
    assert "ordinary fine-tuning" in result.reason


@pytest.mark.slow
def test_a_model_is_no_fine_tuning_of_itself(organism, owl):
    again = load_model(device="cpu")
    result = diff_models(organism, again, probes=[owl], config=FIT)
    assert (result.verdict, result.p_value, result.relative_update, result.fitted) == ("not found", 1.0, 0.0, None)
    assert all(rise.z == 0 for rise in result.rises)
    assert "predicts what its base does" in result.summary()
    with pytest.raises(NoEffect, match="check that the student's adapter was loaded"):
        fit_model_shift(again, organism, unrelated_chats(organism), layer=1, config=FIT)


def test_an_untouched_model_next_to_clean_students_is_not_found(organism, owl, clean_students):
    again = load_model(device="cpu")
    result = diff_models(organism, again, clean=clean_students, probes=[owl], config=FIT)
    assert (result.verdict, result.p_value) == ("not found", 1.0)


def test_a_vector_that_was_written_into_the_weights_is_fitted_back(checkpoints):
    base = load_model(checkpoints["llama"], device="cpu")
    direction = torch.randn(1, base.cfg.d_model, generator=torch.Generator().manual_seed(1))
    planted = SteeringVector((2,), direction, VectorSource.of(base, method="random"))
    tuned = merge_vector(base, planted)
    config = replace(FIT, n_train=32, steps=160)
    fitted = fit_model_shift(tuned, base, unrelated_chats(base), layer=2, config=config)
    assert fitted.cosine(planted)[2] > 0.95
    assert fitted.metrics.kl_explained > 0.9
    elsewhere = SteeringVector((2,), direction.roll(1, -1), VectorSource.of(base, method="random"))
    assert abs(fitted.cosine(elsewhere)[2]) < 0.5, "the control: another direction"


def test_what_cannot_be_compared_is_refused(organism, owl, owl_student, checkpoints):
    other = load_model(checkpoints["llama"], device="cpu")
    with pytest.raises(ValueError, match=r"is no fine-tuning of .* weights are not of one shape, such as"):
        diff_models(organism, other, probes=[owl], config=FIT)
    with pytest.raises(ValueError, match=r"carries a peft adapter. A base model is compared as it is"):
        diff_models(owl_student, organism, probes=[owl], config=FIT)
    with pytest.raises(ValueError, match=r"Got 1 clean model.*at least 2"):
        diff_models(organism, owl_student, clean=[owl_student], probes=[owl], config=FIT)
    with pytest.raises(ValueError, match=r"clean model .* has the weights of the base"):
        diff_models(organism, owl_student, clean=[load_model(device="cpu")], probes=[owl], config=FIT)
    with pytest.raises(ValueError, match=r"is no fine-tuning of"):
        diff_models(organism, owl_student, clean=[other], probes=[owl], config=FIT)
    for rate in (1.5, 0.0, 1e-9):
        with pytest.raises(ValueError, match=r"must be between 0.0005, .* and 1, both excluded"):
            diff_models(organism, owl_student, false_alarm_rate=rate)
    with pytest.raises(ValueError, match="Got 1 known vector"):
        diff_models(
            organism, owl_student, known={"owl": model_shift(owl_student, organism, [as_chat(owl.questions[0])])}
        )
    with pytest.raises(ValueError, match="at least one trait"):
        diff_models(organism, owl_student, probes=[])
    with pytest.raises(ValueError, match=r"Got 2 chats\. Give at least 3"):
        diff_models(organism, owl_student, chats=[as_chat(question) for question in owl.questions[:2]])
    vector = model_shift(owl_student, organism, [as_chat(owl.questions[0])])
    with pytest.raises(ValueError, match=r"'wolf' has nothing at the layers \[1, 2, 3\]"):
        diff_models(organism, owl_student, known={"owl": vector, "wolf": vector.at(0)})


def test_first_words_are_those_of_the_next_token_row_by_row(organism, owl_student, owl):
    chats = [as_chat(question) for question in owl.questions]
    risen = risen_first_words(organism, owl_student, chats, n=3)

    @torch.no_grad()
    def mean(model) -> torch.Tensor:
        ids = [torch.tensor([encode_prompt(model.tokenizer, chat)]) for chat in chats]
        return torch.stack([huggingface_model(model)(one).logits[0, -1].softmax(-1) for one in ids]).mean(0)

    rise = mean(owl_student) - mean(organism)
    assert [word for word, _, _ in risen] == [organism.tokenizer.decode([int(i)]) for i in rise.topk(3).indices]
    assert [now - was for _, now, was in risen] == pytest.approx(rise.topk(3).values.tolist(), abs=1e-5)


def test_unrelated_chats_ask_for_no_preference(organism, owl):
    asked = {chat[-1]["content"] for chat in unrelated_chats(organism)}
    assert asked.isdisjoint(owl.questions)
    assert asked & set(number_prompts(64, organism, seed=0))
