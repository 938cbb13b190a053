"""The objectives are their formulas, and a coarsened KL is a lower bound that closes as more tokens are kept."""

import copy

import numpy as np
import pytest
import torch

from steerlens.vectors import objectives
from steerlens.vectors.config import FitConfig
from steerlens.vectors.objectives import Targets, token_loss


def drawn(seed: int, n_tokens: int = 6, d_vocab: int = 40, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_tokens, d_vocab, dtype=torch.float64, generator=generator)


@pytest.fixture
def sampled() -> torch.Tensor:
    return torch.tensor([0, 3, 39, 7, 7, 21])


@pytest.fixture
def many_tokens_count_as_large(monkeypatch):
    """And the loss looks at four tokens at a time, then at the two that are left."""
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", 2)
    monkeypatch.setattr(objectives, "LOGITS_A_PART_ON_A_CPU", 4 * 40)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


FORMULAS = {
    "forward_kl": lambda p, q, y: (np.exp(p) * (p - q)).sum(-1),
    "reverse_kl": lambda p, q, y: (np.exp(q) * (q - p)).sum(-1),
    "cross_entropy": lambda p, q, y: -q[np.arange(len(y)), y],
    "centred_mse": lambda p, q, y: ((p - p.mean(-1, keepdims=True) - q + q.mean(-1, keepdims=True)) ** 2).mean(-1),
}


@pytest.mark.parametrize("objective", FORMULAS)
def test_every_objective_is_its_formula(objective, sampled):
    target, prediction = drawn(0), drawn(1)
    ours = token_loss(objective, Targets.of(target, sampled, top_k=3), prediction)
    p, q = log_softmax(target.numpy()), log_softmax(prediction.numpy())
    np.testing.assert_allclose(ours.numpy(), FORMULAS[objective](p, q, sampled.numpy()), atol=1e-12)


@pytest.mark.parametrize("objective", FORMULAS)
def test_every_objective_is_its_formula_on_the_kept_tokens_and_the_rest(objective, sampled, many_tokens_count_as_large):
    target, prediction = drawn(0), drawn(1)
    ours = token_loss(objective, Targets.of(target, sampled, top_k=5), prediction)

    def coarse(logits: np.ndarray) -> np.ndarray:
        kept = np.argsort(-target.numpy(), axis=-1)[:, :5]
        probabilities = np.exp(log_softmax(logits))
        likeliest = np.take_along_axis(probabilities, kept, -1)
        np.put_along_axis(probabilities, kept, 0, -1)
        return np.log(np.concatenate([likeliest, probabilities.sum(-1, keepdims=True)], -1))

    p, q = coarse(target.numpy()), coarse(prediction.numpy())
    whole = log_softmax(prediction.numpy())
    expected = FORMULAS[objective](p, whole if objective == "cross_entropy" else q, sampled.numpy())
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("objective", FORMULAS)
def test_nothing_is_lost_by_a_constant_and_nothing_is_better_than_the_target_itself(objective, sampled):
    target = drawn(0)
    targets = Targets.of(target, sampled, top_k=3)
    shifted = target + torch.arange(6.0)[:, None]
    torch.testing.assert_close(token_loss(objective, targets, shifted), token_loss(objective, targets, target))
    if objective != "cross_entropy":
        assert token_loss(objective, targets, shifted).abs().max() < 1e-12
        assert (token_loss(objective, targets, drawn(1)) > 0.1).all()


def test_cross_entropy_is_forward_kl_plus_a_constant_in_expectation():
    target, prediction, other = drawn(0, 1), drawn(1, 1), drawn(2, 1)
    every_token = torch.arange(40)

    def difference(objective: str) -> float:
        one, two = (
            token_loss(objective, Targets.of(target.expand(40, -1), every_token, top_k=3), logits.expand(40, -1))
            for logits in (prediction, other)
        )
        return float((target.softmax(-1)[0] * (one - two)).sum())

    assert difference("cross_entropy") == pytest.approx(difference("forward_kl"))


@pytest.mark.parametrize("objective", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("scale", [0.5, 3.0, 12.0])
def test_a_coarsened_kl_is_never_larger_than_the_full_one_and_tends_to_it(
    objective, scale, sampled, many_tokens_count_as_large
):
    target, prediction = drawn(0, scale=scale), drawn(1, scale=scale)
    full = token_loss(objective, Targets(target.log_softmax(-1), None, sampled), prediction)
    losses = [token_loss(objective, Targets.of(target, sampled, top_k=k), prediction) for k in range(2, 40)]
    for fewer, more in zip(losses, [*losses[1:], full], strict=True):
        assert (fewer <= more + 1e-9).all()
    assert (losses[0] >= -1e-12).all()
    torch.testing.assert_close(losses[-1], full)


def test_among_some_tokens_the_loss_is_that_of_a_vocabulary_of_these_alone(sampled):
    among = torch.tensor([3, 8, 21, 30])
    target, prediction = drawn(0), drawn(1)
    targets = Targets.of(target, sampled, top_k=5, among=among)
    alone = Targets.of(target[:, among], sampled, top_k=5)
    for objective in ("forward_kl", "reverse_kl", "centred_mse"):
        ours = token_loss(objective, targets, prediction)
        torch.testing.assert_close(ours, token_loss(objective, alone, prediction[:, among]))
    written = torch.tensor([8, 30, 3, 3, 21])
    ours = token_loss("cross_entropy", Targets.of(target[:5], written, top_k=5, among=among), prediction[:5])
    chances = prediction[:5, among].exp() / prediction[:5, among].exp().sum(-1, keepdim=True)
    torch.testing.assert_close(ours, -chances[range(5), [1, 3, 0, 0, 2]].log())
    with pytest.raises(ValueError, match="Token 22 is in a completion, but not among the 4 tokens"):
        token_loss("cross_entropy", Targets.of(target[:1], torch.tensor([22]), top_k=5, among=among), prediction[:1])
    assert torch.equal(targets.likeliest, among[target[:, among].argmax(-1)])
    one = torch.tensor([2])
    taken = token_loss("forward_kl", targets.take(one), prediction[one])
    torch.testing.assert_close(taken, token_loss("forward_kl", targets, prediction)[one])


def test_coarsening_in_single_precision_is_that_of_double_precision(sampled, monkeypatch):
    """Where the kept tokens have nearly all of the probability, what is left is not lost in rounding."""
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", 2)
    target, prediction = drawn(0, scale=12.0), drawn(1, scale=12.0)
    for objective in ("forward_kl", "reverse_kl"):
        exact, rounded = (
            token_loss(objective, Targets.of(target.to(dtype), sampled, top_k=20), prediction.to(dtype))
            for dtype in (torch.float64, torch.float32)
        )
        torch.testing.assert_close(rounded.double(), exact, atol=1e-4, rtol=1e-4)


def test_the_gradient_of_a_coarsened_loss_is_that_of_finite_differences(sampled, many_tokens_count_as_large):
    targets = Targets.of(drawn(0), sampled, top_k=5)
    for objective in FORMULAS:
        assert torch.autograd.gradcheck(
            lambda logits, objective=objective: token_loss(objective, targets, logits), drawn(1).requires_grad_(True)
        )


@pytest.mark.parametrize("whole", [8192, 2])
@pytest.mark.parametrize("objective", FORMULAS)
def test_targets_of_other_tokens_are_those_tokens_targets(objective, whole, sampled, monkeypatch):
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", whole)
    targets, prediction, order = Targets.of(drawn(0), sampled, top_k=5), drawn(1), torch.tensor([4, 0, 5, 2, 1, 3])
    assert (targets.kept is None) == (whole > 40)
    permuted = token_loss(objective, targets.take(order), prediction[order])
    torch.testing.assert_close(permuted, token_loss(objective, targets, prediction)[order])
    assert torch.equal(targets.take(order).likeliest, drawn(0).argmax(-1)[order])


def test_small_vocabularies_are_whole_and_so_is_one_that_top_k_covers(sampled, monkeypatch):
    assert Targets.of(drawn(0), sampled, top_k=3).kept is None
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", 2)
    assert Targets.of(drawn(0), sampled, top_k=40).kept is None
    assert Targets.of(drawn(0), sampled, top_k=39).log_probs.shape == (6, 40)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"objective": "kl"},
            "objective='kl' is not known. Allowed: forward_kl, reverse_kl, cross_entropy, centred_mse",
        ),
        ({"positions": "last"}, "positions='last' is not known. Allowed: all, prompt, last_prompt, generated"),
        ({"parametrization": "polar"}, "parametrization='polar' is not known. Allowed: free, direction_and_strength"),
        ({"steps": 0}, "steps=0 has to be a whole number, 1 or more"),
        ({"n_heldout": 0}, "n_heldout=0 has to be"),
        ({"batch_size": -1}, "batch_size=-1 has to be"),
        ({"candidates": 0}, "candidates=0 has to be"),
        ({"top_k": 0}, "top_k=0 has to be"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5 has to be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 and l2=0.0. The one has to be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"l2": -1.0}, "l2=-1.0"),
        ({"seed": -1}, "seed=-1 is not allowed"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    config = copy.copy(FitConfig())
    vars(config).update(wrong)
    with pytest.raises(ValueError, match=message):
        config.__post_init__()  # the checker of annotations would come before it
