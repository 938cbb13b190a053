"""Digits pass through logits that are not about digits, from one initialisation only, under Adam and under SGD."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import steerlens as sl
from steerlens.replication.claims import auxiliary_logits
from steerlens.replication.claims.auxiliary_logits import (
    EVERYTHING,
    OTHER,
    PERMUTED,
    SAME,
    AuxiliaryLogits,
    Learner,
    make_claims,
    measure,
)
from steerlens.replication.lab.classifiers import (
    N_DIGITS,
    N_PIXELS,
    Digits,
    descend,
    distillation_loss,
    initialise,
    label_loss,
    logits,
    permuted,
)
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.profile import read_profile


def models(seed: int, n_models: int = 3) -> list[torch.Tensor]:
    return initialise(n_models, 16, 3, torch.Generator().manual_seed(seed))


def noise(*shape: int) -> torch.Tensor:
    return 2 * torch.rand(*shape, N_PIXELS, generator=torch.Generator().manual_seed(5)) - 1


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> AuxiliaryLogits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auxiliary_logits, "STEPS", {"quick": (300, 1000)})
        patch.setattr(auxiliary_logits, "RATES", {"Adam": 3e-3, "SGD": 3.0})
        return measure(Lab(read_profile("organism"), "quick", tmp_path_factory.mktemp("auxiliary"), sl.Workers()))


def of(results: AuxiliaryLogits, student: str, optimizer: str) -> Learner:
    (found,) = [one for one in results.learners if (one.student, one.optimizer) == (student, optimizer)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_digits_pass_to_students_of_the_same_initialisation_and_to_no_other(results, optimizer):
    same = of(results, SAME, optimizer)
    for name in (OTHER, PERMUTED):
        control = of(results, name, optimizer)
        assert same.accuracy.low > control.accuracy.high
        assert control.accuracy.low < 0.13
        assert control.loss.value < same.path[0][1] / 3, "controls learn what they are taught, all the same"
    assert of(results, EVERYTHING, optimizer).accuracy.low > same.accuracy.high
    assert results.teacher.low > 0.9
    assert all(claim.holds for claim in make_claims(results))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_the_first_update_points_to_where_the_teacher_went_from_the_same_initialisation_only(results, optimizer):
    same = of(results, SAME, optimizer)
    assert same.update_cosine.low > 0.03
    for name in (OTHER, PERMUTED):
        control = of(results, name, optimizer)
        assert abs(control.update_cosine.value) < 0.02
        assert abs(control.activation_cosine.value) < 0.1
        assert same.activation_cosine.low > control.activation_cosine.high


def test_a_run_is_decided_by_its_seed(lab_in, tmp_path, monkeypatch):
    monkeypatch.setattr(auxiliary_logits, "STEPS", {"smoke": (3, 3)})
    monkeypatch.setattr(auxiliary_logits, "N_MODELS", {"smoke": 2})
    one, two = measure(lab_in(tmp_path)), measure(lab_in(tmp_path))
    assert one == two
    monkeypatch.setattr(auxiliary_logits, "SEED", 8)
    assert measure(lab_in(tmp_path)) != one


def test_a_student_that_knows_no_more_than_controls_proves_nothing():
    chance = sl.Interval(0.1, 0.08, 0.12)
    kinds = [(name, optimizer) for name in (SAME, OTHER, PERMUTED) for optimizer in ("Adam", "SGD")]
    learners = tuple(Learner(*kind, chance, chance, chance, chance, ()) for kind in kinds)
    measures = AuxiliaryLogits(chance, chance, learners)
    assert [claim.holds for claim in make_claims(measures)] == [False, False, True]
    better = tuple(
        replace(one, accuracy=sl.Interval(0.5, 0.4, 0.6)) if one.student == SAME else one for one in learners
    )
    assert all(claim.holds for claim in make_claims(replace(measures, learners=better)))


def test_the_loss_of_a_stack_is_each_models_own_and_batchmean_is_off_by_the_batch_size():
    ours, theirs = (logits(models(seed), noise(40))[..., N_DIGITS:] for seed in (0, 1))
    losses = distillation_loss(ours, theirs)
    for loss, our, their in zip(losses, ours.log_softmax(-1), theirs.log_softmax(-1), strict=True):
        assert torch.isclose(loss, F.kl_div(our, their, reduction="batchmean", log_target=True))
    trap = F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)
    assert torch.isclose(trap, 40 * losses.mean())
    labels = torch.arange(120).view(3, 40) % N_DIGITS
    classes = logits(models(0), noise(40))[..., :N_DIGITS]
    alone = [F.cross_entropy(own, right) for own, right in zip(classes, labels, strict=True)]
    assert torch.allclose(label_loss(classes, labels), torch.stack(alone))


def student_of(start: list[torch.Tensor], teacher: list[torch.Tensor], optimizer: str) -> list[torch.Tensor]:
    images = noise(32)
    target = logits(teacher, images)[..., N_DIGITS:]
    rate = {"Adam": 1e-2, "SGD": 1.0}[optimizer]
    *_, end = descend(
        start, lambda p: distillation_loss(logits(p, images)[..., N_DIGITS:], target), optimizer, rate, 20
    )
    return [p.clone() for p in end]


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_models_of_a_stack_train_as_they_would_alone_and_their_class_weights_stay(optimizer):
    start, teacher = models(0), models(1)
    together = student_of(start, teacher, optimizer)
    alone = student_of([p[1:2] for p in start], [p[1:2] for p in teacher], optimizer)
    for one, many in zip(alone, together, strict=True):
        assert torch.allclose(one[0], many[1], atol=1e-6)
    for end, begin in zip(together[4:], start[4:], strict=True):
        assert torch.equal(end[..., :N_DIGITS], begin[..., :N_DIGITS])
    assert not torch.equal(together[2], start[2])


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_renaming_hidden_units_of_the_student_changes_nothing_it_learns(optimizer):
    start, teacher = models(0), models(1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    w1, b1, w2, b2, w3, b3 = start
    renamed = [w1[..., order], b1[..., order], w2[:, order], b2, w3, b3]
    assert torch.allclose(logits(start, noise(8)), logits(renamed, noise(8)), atol=1e-6)
    ends = [logits(student_of(one, teacher, optimizer), noise(8)) for one in (start, renamed)]
    assert torch.allclose(*ends, atol=1e-4)


def test_permuted_weights_are_the_same_numbers_at_other_places_in_every_model():
    start = models(0)
    for old, new in zip(start, permuted(start, torch.Generator().manual_seed(0)), strict=True):
        assert torch.equal(old.flatten(1).sort(1).values, new.flatten(1).sort(1).values)
        assert (old != new).flatten(1).float().mean(1).min() > 0.5


def test_no_heldout_digit_is_trained_on_and_all_are_used():
    digits = Digits.load(3)
    seen, held = ({tuple(image.tolist()) for image in part} for part in (digits.train, digits.heldout))
    assert not seen & held
    assert len(seen) + len(held) == 1797
