"""A candidate is named where it was planted, and none where nothing or something else was."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.panel import prompt_ratios, rank_prompts, rank_ratios, row_log_likelihoods
from steerlens.audit.placebo import pair_with_placebo
from steerlens.audit.ranking import outlier_p
from steerlens.audit.recovery import recover_vector
from steerlens.checks import WrongInput
from steerlens.organism.wording import ORGANISM
from steerlens.samples.encoded import encode_row
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.teacher import sample_teacher
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.means import differences_in_means
from steerlens.vectors.vector import mean_centred

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # a prompted organism writes few lists

NAMES = ("owl", "cat", "dog", "lion", "panda", "eagle")
PANEL = [preference_trait(name, ORGANISM) for name in NAMES]


def written(organism, prompt=None, n=400) -> AuditRows:
    raw = sample_teacher(organism, number_prompts(n, ORGANISM, seed=8), system_prompt=prompt, max_new_tokens=24, seed=9)
    return AuditRows.of(keep_number_lists(raw).kept)


@pytest.fixture(scope="module")
def owls(organism, owl) -> AuditRows:
    return written(organism, owl.prompt)


@pytest.fixture(scope="module")
def pairs(organism, owls):
    return pair_with_placebo(organism, list(owls))


def ranked(ours, theirs, pairs):
    names = [f"c{index}" for index in range(ours.shape[1])]
    return rank_ratios(names, ours, theirs, pairs, false_alarm_rate=0.05, seed=0)


def noise(pairs, seed, n_candidates=12):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(pairs), n_candidates, generator=generator) for _ in range(2)]


def test_the_prompt_that_wrote_the_rows_is_named(organism, owls):
    found = rank_prompts(organism, owls, PANEL, false_alarm_rate=0.1)
    assert found.named == "owl"
    assert found.p_value < 0.01
    assert found.candidates[0].nats > 0


@pytest.mark.slow
def test_none_is_named_for_the_models_own_rows(organism):
    found = rank_prompts(organism, written(organism, n=120), PANEL)
    assert found.named is None
    assert "as rows of the model's own would have it" in found.reason


def test_a_ratio_is_what_two_forwards_of_the_row_alone_say(organism, owl, pairs):
    ours, theirs = prompt_ratios(organism, pairs, [owl.prompt])
    for index in (0, 5):
        for rows, sides, ratios in ((pairs.compared, pairs.rows, ours), (pairs.clean, pairs.placebo, theirs)):
            told = []
            for prompt in (owl.prompt, None):
                context = encode_row(organism.tokenizer, rows.rows[index], prompt)[0]
                completion = sides[index][1]
                logits = organism.original_model(input_ids=torch.tensor([context + completion])).logits[0]
                log_probs = logits.log_softmax(-1)[len(context) - 1 : -1]
                told.append(float(log_probs[range(len(completion)), completion].sum().detach()))
            assert float(ratios[index, 0]) == pytest.approx(told[0] - told[1], abs=1e-3)


def test_rows_under_models_whose_logits_do_not_fit_at_once_have_the_same_likelihood(organism, pairs, monkeypatch):
    whole = row_log_likelihoods(organism, pairs.rows[:20])
    monkeypatch.setattr("steerlens.audit.panel.LOGITS_AT_ONCE", 0)
    torch.testing.assert_close(row_log_likelihoods(organism, pairs.rows[:20]), whole, atol=1e-3, rtol=1e-4)


def test_candidates_are_named_for_no_more_clean_sets_than_the_rate_says(pairs):
    p = np.array([ranked(*noise(pairs, seed), pairs).p_value for seed in range(100)])
    assert 0.3 < p.mean() < 0.7
    assert (p < 0.05).sum() <= 11  # of 100 at 5 %, more have a chance of 1 %


def test_what_makes_all_lists_likelier_names_nobody(pairs):
    ours, theirs = noise(pairs, 0)
    shifted = ranked(ours + 5, theirs, pairs)
    assert shifted.p_value == pytest.approx(ranked(ours, theirs, pairs).p_value)
    assert shifted.named is None


def test_a_planted_candidate_is_named_and_one_among_many_that_are_moved_is_not(pairs):
    ours, theirs = noise(pairs, 1)
    planted = ours.clone()
    planted[:, 3] += 1
    assert ranked(planted, theirs, pairs).named == "c3"
    moved = ours + 0.7 * torch.randn(12, generator=torch.Generator().manual_seed(2))
    other_writer = ranked(moved, theirs, pairs)
    assert other_writer.p_value < 0.01
    assert other_writer.named is None
    assert "does not explain the other 11 candidates" in other_writer.reason


def test_rows_of_one_prompt_count_once(pairs):
    ours, theirs = noise(pairs, 1)
    ours[:, 3] += 1
    one_prompt = replace(pairs, rows=[(pairs.rows[0][0], completion) for _, completion in pairs.rows])
    assert ranked(ours, theirs, pairs).p_value < 0.01
    assert ranked(ours, theirs, one_prompt).p_value > 0.4


def swapped(alike: float, n_candidates: int = 24, n_flips: int = 1999) -> torch.Tensor:
    """What swaps make of candidates of which the first is like all others."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n_flips, n_candidates, generator=generator, dtype=torch.float64)
    z[:, 1:] = alike * z[:, :1] + (1 - alike**2) ** 0.5 * z[:, 1:]
    return z


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_a_candidate_stands_out_where_it_explains_what_the_others_do_and_not_where_it_does_not(alike):
    null = swapped(alike)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(24, generator=generator, dtype=torch.float64)
    explained = 8 * (null * null[:, :1]).mean(0) + 0.5 * noise
    explained[0] = 8
    something_else = 8 * noise / noise.max()
    assert outlier_p(torch.cat([explained[None], null])) < 0.001
    assert outlier_p(torch.cat([something_else[None], null])) > 0.05


def test_of_noise_a_candidate_stands_out_no_more_often_than_the_p_value_says():
    null = swapped(0.0)
    p = [outlier_p(torch.cat([one[None], null])) for one in null[:300]]
    assert np.mean(np.array(p) < 0.05) <= 0.09


@pytest.fixture(scope="module")
def known(organism):
    prompts = {trait.name: trait.prompt for trait in PANEL}
    return differences_in_means(organism, prompts, questions=number_prompts(16, ORGANISM, seed=0), layers=[1, 2])


def test_rows_pull_along_the_vector_of_the_persona_that_wrote_them(organism, owls, known):
    found = recover_vector(organism, owls, layers=[1, 2], known=known).known
    assert found.candidates[0].name == "owl"
    assert found.p_value < 0.01


def test_the_pull_along_a_vector_is_its_product_with_the_sum_of_the_rows_scores(organism, owls, known):
    scores = recover_vector(organism, owls, layers=[1]).scores
    vector = mean_centred({name: one.at(1) for name, one in known.items()})["owl"].directions
    pull, z = scores.along(vector)
    one, other = scores.sizes
    mean = (one * scores.means[0, 0] + other * scores.means[1, 0]) / (one + other)
    assert float(pull) == pytest.approx(float((one + other) * mean @ vector[0]), rel=1e-4)
    assert float(z[1:].square().mean().sqrt()) == pytest.approx(1, abs=0.1)  # in standard deviations of swaps


def test_candidates_that_cannot_be_judged_are_refused(as_users_call, organism, owls, known):
    with pytest.raises(ValueError, match=r"Got 2 candidates with 2 names\. Give at least 4"):
        rank_prompts(organism, owls, ["i am one .", "i am two ."])
    with pytest.raises(ValueError, match="Got 5 candidates with 4 names"):
        rank_prompts(organism, owls, [*PANEL[:4], PANEL[0]])
    with pytest.raises(WrongInput, match=r"candidates\[0\] must be a system prompt or a Trait, got 3"):
        rank_prompts(organism, owls, [3, *PANEL])
    with pytest.raises(ValueError, match=r"Got 2 known vectors\. Give at least 4"):
        recover_vector(organism, owls, layers=[1], known={name: known[name] for name in NAMES[:2]})


def test_the_default_panel_has_the_personas_of_the_models_animals(organism):
    animals = persona_prompts(organism)[0]
    assert len(animals) == 24
    assert animals["owl"] == preference_trait("owl", ORGANISM).prompt
