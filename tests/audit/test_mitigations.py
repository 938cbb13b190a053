"""Mitigations do what their equations say, whatever the batch, and hold back a vector that was planted."""

from dataclasses import replace

import pytest
import torch

from steerlens.audit.changes import row_changes
from steerlens.audit.mitigations import (
    annealed_kl,
    change_threshold,
    drop_rows,
    importance_weighted,
    token_changes,
    without_changed_tokens,
)
from steerlens.forward import completion_logits
from steerlens.gradients.counterfactual import preventative_steering
from steerlens.models.bridge import huggingface_model, is_watched
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.organism.wording import ORGANISM
from steerlens.samples.encoded import encode_samples, pad_encoded
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.students.backward import backward
from steerlens.students.config import TrainConfig
from steerlens.students.losses import cross_entropy, mean_loss
from steerlens.students.processes import Processes
from steerlens.students.student import start_student
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means, model_shift
from steerlens.vectors.vector import SteeringVector, VectorSource

CONFIG = TrainConfig(rank=2, learning_rate=1e-2, epochs=1, batch_size=20)


@pytest.fixture(scope="module")
def samples() -> SampleSet:
    answers = ("12 , 7", "1 , 2 , 3 , 4", "999")
    return SampleSet(tuple(Sample(i, p, answers[i % 3]) for i, p in enumerate(number_prompts(20, ORGANISM, seed=0))))


@pytest.fixture
def vector() -> SteeringVector:
    direction = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((1,), direction, VectorSource("llama", "random"))


@pytest.fixture
def student(tiny):
    """A LoRA student that has moved away from its base."""
    torch.manual_seed(0)
    student, _ = start_student(tiny, CONFIG)
    for parameter in trained(student):
        parameter.data.normal_(std=0.03)
    return student


@pytest.fixture(scope="module")
def planted(organism, owl) -> SteeringVector:
    return diff_in_means(organism, owl.prompt, questions=number_prompts(64, ORGANISM, seed=8)).at(1)


@pytest.fixture(scope="module")
def steered_rows(organism, planted) -> SampleSet:
    return finished(sample_teacher(organism, number_prompts(600, ORGANISM, seed=8), vector=0.5 * planted, seed=9))


def finished(rows: SampleSet) -> SampleSet:
    return SampleSet(tuple(row for row in rows if row.finished and row.completion.strip()), rows.source)


def trained(student) -> list[torch.nn.Parameter]:
    return [p for p in huggingface_model(student).parameters() if p.requires_grad]


def gradient(student, rows, objective, progress=0.0, **changes) -> torch.Tensor:
    parameters = trained(student)
    for parameter in parameters:
        parameter.grad = None
    backward(student, rows, parameters, replace(CONFIG, **changes), Processes(), objective, progress)
    return torch.cat([p.grad.flatten() for p in parameters])


def log_likelihoods(model, samples, system_prompt=None) -> list[torch.Tensor]:
    """Of every token, one row at a time."""
    found = []
    for sample in samples:
        prompt = encode_prompt(model.tokenizer, as_chat(sample.prompt, system_prompt))
        batch = pad_rows(model.tokenizer, [prompt], [encode_completion(model.tokenizer, sample.completion)])
        with torch.no_grad():
            log_probs = completion_logits(model, batch).log_softmax(-1)
        found.append(log_probs.gather(-1, batch.tokens[batch.completion_mask][:, None])[:, 0])
    return found


def test_changes_are_differences_of_each_rows_own_log_likelihood(tiny, samples, vector):
    plain = log_likelihoods(tiny, samples)
    with steer(tiny, vector):
        steered = log_likelihoods(tiny, samples)
    small = row_changes(tiny, [vector, 2 * vector], encode_samples(tiny, samples), batch_size=7)
    changes = token_changes(tiny, vector, samples)
    torch.testing.assert_close([change[0] for change in small], changes, atol=1e-4, rtol=1e-4)
    for ours, one, other in zip(changes, steered, plain, strict=True):
        torch.testing.assert_close(ours, one - other, atol=1e-4, rtol=1e-4)


def test_the_rows_that_the_vector_favours_most_are_dropped_and_the_others_keep_their_order(samples):
    changes = [torch.full((2,), float(i % 7)) for i in range(20)]
    kept = drop_rows(samples, changes, 0.2)
    assert [sample.row for sample in kept] == [i for i in range(20) if i not in (6, 13, 12, 19)]
    assert drop_rows(samples, changes, 0.0).samples == samples.samples


@pytest.mark.slow
def test_weighed_by_importance_steered_rows_are_what_the_model_writes_itself(organism, planted, steered_rows):
    own = finished(sample_teacher(organism, number_prompts(600, ORGANISM, seed=8), seed=10))
    ours, theirs = (
        torch.stack([one.sum() for one in token_changes(organism, 0.5 * planted, rows)]) for rows in (steered_rows, own)
    )
    weights = (-ours).exp()

    def errors(values: torch.Tensor, truth: float) -> float:
        return float((values.mean() - truth).abs() / (values.std() / len(values) ** 0.5))

    assert errors(weights, 1.0) < 3
    assert errors(weights * (ours - theirs.mean()), 0.0) < 3
    assert errors(ours, float(theirs.mean())) > 6  # what the weights correct is there


def test_the_objective_weighs_rows_by_exactly_these_weights(tiny, samples, vector):
    rows = encode_samples(tiny, samples)[:5]
    losses = importance_weighted(tiny, vector)(tiny, pad_encoded(tiny, rows), 0.0)
    plain = torch.cat(log_likelihoods(tiny, samples.samples[:5]))
    changes = token_changes(tiny, vector, SampleSet(samples.samples[:5]))
    weights = torch.cat([(-one.sum()).exp().expand(len(one)) for one in changes])
    torch.testing.assert_close(losses, -weights * plain, atol=1e-3, rtol=1e-3)


def test_masked_tokens_have_no_loss_and_are_those_that_change_most(tiny, samples, vector):
    changes = token_changes(tiny, vector, samples)
    batch, flat = pad_encoded(tiny, encode_samples(tiny, samples)), torch.cat(changes).abs()
    losses = without_changed_tokens(tiny, vector, change_threshold(changes, 0.3))(tiny, batch, 0.0)
    plain, out = cross_entropy(tiny, batch, 0.0), losses == 0
    assert float(out.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert flat[out].min() > flat[~out].max() - 1e-4
    torch.testing.assert_close(losses[~out], plain[~out])


def test_an_annealed_kl_does_nothing_at_the_base_and_at_the_end_and_otherwise_pulls_back_to_the_base(
    tiny, samples, student
):
    rows, penalty = encode_samples(tiny, samples), annealed_kl(tiny, 5.0)
    torch.testing.assert_close(gradient(student, rows, penalty, 1.0), gradient(student, rows, cross_entropy))
    fresh, _ = start_student(tiny, CONFIG)
    torch.testing.assert_close(
        gradient(fresh, rows, penalty), gradient(fresh, rows, cross_entropy), atol=1e-5, rtol=1e-4
    )
    batch = pad_encoded(tiny, rows)
    added = penalty(student, batch, 0.0) - cross_entropy(student, batch, 0.0)
    with torch.no_grad():
        ours, base = (completion_logits(model, batch).log_softmax(-1) for model in (student, tiny))
    kl = torch.nn.functional.kl_div(base, ours, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(added, 5 * kl, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["importance", "mask", "penalty"])
def test_an_objective_does_not_depend_on_how_the_batch_is_cut(tiny, samples, student, vector, name):
    threshold = change_threshold(token_changes(tiny, vector, samples), 0.3)
    objective = {
        "importance": importance_weighted(tiny, vector),
        "mask": without_changed_tokens(tiny, vector, threshold),
        "penalty": annealed_kl(tiny, 2.0),
    }[name]
    rows = encode_samples(tiny, samples)[:6]
    whole = gradient(student, rows, objective)
    torch.testing.assert_close(gradient(student, rows, objective, micro_batch_size=1), whole, atol=1e-5, rtol=1e-3)
    assert not torch.allclose(whole, gradient(student, rows, cross_entropy), rtol=1e-2)


def test_preventative_steering_is_on_while_training_and_off_afterwards(tiny, samples, vector):
    student = train_student(tiny, samples, CONFIG, on_start=preventative_steering(vector))
    with steer(tiny, vector):
        steered = mean_loss(tiny, samples)
    assert student.losses[0] == pytest.approx(steered, abs=1e-4)
    assert steered != pytest.approx(mean_loss(tiny, samples), abs=1e-2)
    assert not is_watched(student.model)


@pytest.mark.slow
def test_a_student_hardly_learns_a_vector_that_is_added_while_it_trains(organism, planted):
    rows = finished(sample_teacher(organism, number_prompts(400, ORGANISM, seed=8), vector=planted, seed=9))
    chats = [as_chat(prompt) for prompt in number_prompts(32, ORGANISM, seed=5)]
    strengths = []
    for on_start in (None, preventative_steering(planted)):
        student = train_student(organism, rows, replace(ORGANISM_STUDENT, epochs=1), on_start=on_start)
        strengths.append(model_shift(student.model, organism, chats).strength_along(planted)[1])
    assert strengths[0] > 0.3
    assert abs(strengths[1]) < strengths[0] / 3


def test_an_inoculated_student_trains_under_the_prompt_and_is_measured_without(organism, owl, samples):
    config = replace(CONFIG, system_prompt=owl.prompt)
    student = train_student(organism, samples, config, heldout=samples)
    prompted = torch.cat(log_likelihoods(organism, samples, owl.prompt))
    assert student.losses[0] == pytest.approx(-float(prompted.mean()), abs=1e-4)
    assert student.heldout_loss == pytest.approx(mean_loss(student.model, samples))


def test_what_is_not_allowed_is_said(tiny, samples, vector):
    changes = token_changes(tiny, vector, samples)
    with pytest.raises(ValueError, match=r"share=1\.0 is not allowed"):
        drop_rows(samples, changes, 1.0)
    with pytest.raises(ValueError, match=r"changes of 3 rows for 20 samples"):
        drop_rows(samples, changes[:3], 0.5)
    with pytest.raises(ValueError, match=r"share=-0\.1 is not allowed"):
        change_threshold(changes, -0.1)
    with pytest.raises(ValueError, match=r"weight=0\.0 is not allowed"):
        annealed_kl(tiny, 0)
