"""Intervals are over questions, controls have the norm that they should, and agreement is on tokens."""

import numpy as np
import pytest
import torch

from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import capture_residuals
from steerlens.stats import N_RESAMPLES
from steerlens.text.chat import as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.vectors import objectives
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.fit_quality import (
    explained_with_interval,
    judge,
    random_directions,
)
from steerlens.vectors.means import diff_in_means, principal_difference
from steerlens.vectors.resumed import ResumedRows

QUESTIONS = number_prompts(24, ORGANISM, seed=9)


def kls(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    plain = rng.gamma(2.0, 1.0, n)
    return torch.from_numpy(plain * rng.uniform(0.1, 0.9, n)).float(), torch.from_numpy(plain).float()


def test_the_interval_is_that_of_a_bootstrap_by_hand():
    steered, plain = kls(30)
    explained, low, high = explained_with_interval(steered, plain, list(range(30)), seed=3)
    assert explained == pytest.approx(1 - float(steered.sum() / plain.sum()), abs=1e-6)
    rng, shares = np.random.default_rng(3), []
    for _ in range(N_RESAMPLES):
        rows = rng.integers(0, 30, 30)
        shares.append(1 - float(steered.double()[rows].sum() / plain.double()[rows].sum()))
    np.testing.assert_allclose((low, high), np.quantile(shares, [0.025, 0.975]), atol=1e-9)
    other = explained_with_interval(steered, plain, list(range(30)), seed=4)
    np.testing.assert_allclose(other, (explained, low, high), atol=0.03)
    assert other != (explained, low, high)


def test_copies_of_a_question_make_no_interval_narrower():
    """Each question ten times: by question the interval stays that of the questions, by row it would shrink."""
    steered, plain = kls(20)
    once = explained_with_interval(steered, plain, list(range(20)), seed=0)
    questions = [question for question in range(20) for _ in range(10)]
    steered, plain = steered.repeat_interleave(10), plain.repeat_interleave(10)
    clustered = explained_with_interval(steered, plain, questions, seed=0)
    by_row = explained_with_interval(steered, plain, list(range(200)), seed=0)
    np.testing.assert_allclose(clustered, once, atol=1e-6)
    assert by_row[2] - by_row[1] < 0.5 * (clustered[2] - clustered[1])


def test_neither_the_order_of_rows_nor_the_names_of_questions_matter():
    steered, plain = kls(12)
    questions = [5, 5, 9, 9, 9, 70, 2, 2, 31, 31, 31, 31]
    ours = explained_with_interval(steered, plain, questions, seed=0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = explained_with_interval(steered[order], plain[order], [questions[i] for i in order], seed=0)
    np.testing.assert_allclose(shuffled, ours, atol=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Questions drawn anew 200 times, each with rows that agree: the share that is explained is 1/2 in the long run."""
    rng, held = np.random.default_rng(0), 0
    for seed in range(200):
        plain = np.repeat(rng.gamma(2.0, 1.0, 40), 3)
        steered = plain * np.repeat(rng.uniform(0, 1, 40), 3)
        questions = np.repeat(np.arange(40), 3).tolist()
        _, low, high = explained_with_interval(
            torch.from_numpy(steered).float(), torch.from_numpy(plain).float(), questions, seed=seed
        )
        held += low <= 0.5 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_random_directions_have_the_norm_of_the_vector_at_each_layer_and_no_other_likeness():
    like = torch.randn(3, 400, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [5.0], [0.0]])
    drawn = random_directions(like, 5, seed=1)
    assert len(drawn) == 5
    for one in drawn:
        torch.testing.assert_close(one.norm(dim=-1), like.norm(dim=-1))
        assert torch.nn.functional.cosine_similarity(one[:2], like[:2], dim=-1).abs().max() < 0.25
    assert not torch.equal(drawn[0], random_directions(like, 5, seed=2)[0])


@pytest.mark.parametrize("top_k", [2, 40])
def test_agreement_is_on_tokens_even_where_the_bucket_of_all_others_is_likeliest(tiny, monkeypatch, top_k):
    config = FitConfig(n_train=1, n_validation=1, n_heldout=12, max_new_tokens=4, top_k=top_k)
    whole = FitData.sample(tiny, "you love owls .", QUESTIONS, config)
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", 2)
    coarse = FitData.sample(tiny, "you love owls .", QUESTIONS, config)
    rest_is_likeliest = coarse.heldout[0].targets.log_probs.argmax(-1) == top_k
    assert rest_is_likeliest.any()
    ours, by_hand = (
        judge(rows, data.heldout, torch.ones(1, 32))
        for data in (coarse, whole)
        for rows in [ResumedRows(tiny, [1], data.heldout, "all")]
    )
    assert ours.agreement == by_hand.agreement < 1
    assert ours.agreement_plain == by_hand.agreement_plain < 1


def test_the_principal_difference_is_numpys_with_the_means_norm_and_sign(any_model):
    ours = principal_difference(any_model, "you love owls .", questions=QUESTIONS, layers=[3, 1])
    mean = diff_in_means(any_model, "you love owls .", questions=QUESTIONS, layers=[3, 1])
    prompted, plain = (
        capture_residuals(any_model, [as_chat(q, text) for q in QUESTIONS], layers=[3, 1]).double().numpy()
        for text in ("you love owls .", None)
    )
    for index, layer in enumerate((3, 1)):
        principal = np.linalg.svd(prompted[index] - plain[index])[2][0]
        direction = ours.at(layer).directions[0].numpy()
        assert abs(principal @ direction) / np.linalg.norm(direction) == pytest.approx(1, abs=1e-4)
        assert ours.norms[layer] == pytest.approx(mean.norms[layer], rel=1e-5)
        assert ours.cosine(mean)[layer] > 0
    assert "principal" in ours.source.method
    assert ours.source.prompt == "you love owls ."
