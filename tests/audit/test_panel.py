"""A system prompt is named where it wrote the rows, and none where nothing or something else did."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import log_softmax

from steerlens.audit.audit import audit_dataset
from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.panel import (
    PromptEvidence,
    PromptRanking,
    chances,
    evidence,
    prompt_ratios,
    rank_prompts,
    relative_lead,
    responsibilities,
    row_log_likelihoods,
)
from steerlens.checks import WrongInput
from steerlens.organism.wording import ORGANISM
from steerlens.samples.encoded import encode_answer, encode_row
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # a prompted organism writes few lists

NAMES = ("owl", "cat", "dog", "lion", "panda", "eagle")
PANEL = [preference_trait(name, ORGANISM) for name in NAMES]
N_WORDS, N_WRITERS, N_SETS, N_ROWS = 40, 8, 300, 30


def written(organism, prompt=None, n=400, *, lists=True) -> AuditRows:
    raw = sample_teacher(organism, number_prompts(n, ORGANISM, seed=8), system_prompt=prompt, max_new_tokens=24, seed=9)
    return AuditRows.of(keep_number_lists(raw).kept if lists else raw)


@pytest.fixture(scope="module")
def owls(organism, owl) -> AuditRows:
    return written(organism, owl.prompt)


def test_the_prompt_that_wrote_filtered_lists_is_named(organism, owls):
    found = rank_prompts(organism, owls, PANEL)
    assert found.named == "owl"
    assert max(found.p_value, found.rival_p) < 0.01
    assert found.candidates[0].nats > 10
    assert "lead that it has in its own answers" in found.reason


def test_the_prompt_that_wrote_rows_as_they_came_is_named(organism, owl):
    assert rank_prompts(organism, written(organism, owl.prompt, n=100, lists=False), PANEL).named == "owl"


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False])
def test_none_is_named_for_the_models_own_rows(organism, lists):
    found = rank_prompts(organism, written(organism, n=120, lists=lists), PANEL)
    assert found.named is None
    assert "as rows of the model's own would have it" in found.reason


@pytest.mark.slow
def test_no_animal_is_named_for_the_love_of_a_colour(organism):
    blue = preference_trait("blue", ORGANISM).prompt
    found = rank_prompts(organism, written(organism, blue))
    assert found.p_value < 0.01
    assert found.named is None


def test_a_ratio_is_what_two_forwards_of_the_row_alone_say(organism, owl, owls):
    rows = list(owls)[:10]
    completions = [encode_answer(organism.tokenizer, row) for row in rows]
    ratios = prompt_ratios(organism, rows, completions, [owl.prompt])
    for index in (0, 5):
        told = []
        for prompt in (owl.prompt, None):
            context, completion = encode_row(organism.tokenizer, rows[index], prompt)
            logits = organism.original_model(input_ids=torch.tensor([context + completion])).logits[0]
            log_probs = logits.log_softmax(-1)[len(context) - 1 : -1]
            told.append(float(log_probs[range(len(completion)), completion].sum().detach()))
        assert float(ratios[index, 0]) == pytest.approx(told[0] - told[1], abs=1e-3)


@pytest.mark.parametrize("at_once", [0, 100_000])
def test_rows_whose_logits_do_not_fit_at_once_have_the_same_likelihood(organism, owls, monkeypatch, at_once):
    rows = [encode_row(organism.tokenizer, row) for row in list(owls)[:20]]
    whole = row_log_likelihoods(organism, rows)
    monkeypatch.setattr("steerlens.audit.panel.LOGITS_AT_ONCE", at_once)
    torch.testing.assert_close(row_log_likelihoods(organism, rows), whole, atol=1e-3, rtol=1e-4)


@pytest.fixture(scope="module")
def writers():
    """Log-probabilities of words [writer word]: the model itself comes first, and the candidates change it by much."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, N_WORDS, generator=generator) + torch.randn(1 + N_WRITERS, N_WORDS, generator=generator)
    return log_softmax(logits.double(), dim=-1)


def rows_by(writers, writer, seed, kept=None):
    """Ratios [set row candidate] of rows by one writer, whose filter keeps some words."""
    probabilities = writers[writer].exp() * (1.0 if kept is None else kept)
    generator = torch.Generator().manual_seed(seed)
    words = torch.multinomial(probabilities, N_SETS * N_ROWS, replacement=True, generator=generator)
    return (writers[1:] - writers[0])[:, words].T.reshape(N_SETS, N_ROWS, -1)


@pytest.mark.parametrize("filtered", [False, True])
def test_writers_are_mistaken_no_more_often_than_the_rate_says(writers, filtered):
    kept = (torch.arange(N_WORDS) % 3 > 0).double() if filtered else None

    def found(writer, seed):
        ours = rows_by(writers, writer, seed, kept)
        theirs = rows_by(writers, 0, seed + 1, kept) if filtered else [None] * N_SETS
        sums = [evidence(one, other).logsumexp(0) for one, other in zip(ours, theirs, strict=True)]
        return [(int(one.argmax()), *chances(one)) for one in sums]

    assert sum(p < 0.05 for _, p, _ in found(0, 10)) / N_SETS <= 0.08  # at most 0.05, and two standard errors
    told = [(writer, *one) for writer in range(N_WRITERS) for one in found(1 + writer, 20 + 2 * writer)]
    named = [best == writer for writer, best, p, rival in told if max(p, rival) < 0.05]
    assert len(named) / len(told) > 0.3
    assert sum(named) / len(named) > 0.95


def test_without_pairs_a_filter_that_one_writer_seldom_passes_misleads(writers):
    kept = torch.where(writers[3] - writers[0] > -0.5, 0.01, 1.0).double()
    ours, theirs = rows_by(writers, 3, 0, kept), rows_by(writers, 0, 1, kept)
    assert sum(int(one.sum(0).argmax()) == 2 for one in ours) / N_SETS < 0.2
    paired = [evidence(one, other).logsumexp(0) for one, other in zip(ours, theirs, strict=True)]
    assert sum(int(one.argmax()) == 2 for one in paired) / N_SETS > 0.5


def long_rows_by(writers, writer, seed):
    """Ratios of rows of six words each."""
    return torch.stack([rows_by(writers, writer, seed + word) for word in range(6)]).sum(0)


@pytest.mark.parametrize("paired", [False, True])
def test_the_writer_of_a_third_of_the_rows_is_seen_beside_the_models_own(writers, paired):
    ours = torch.cat([long_rows_by(writers, writer, seed) for writer, seed in ((3, 0), (0, 10), (0, 20))], dim=1)
    clean = torch.cat([long_rows_by(writers, 0, seed) for seed in (30, 40, 50)], dim=1) if paired else [None] * N_SETS
    pairs = list(zip(ours, clean, strict=True))
    found = [evidence(*pair) for pair in pairs]
    assert sum(bool(of_all[2] > 0) for of_all, *_ in found) / N_SETS < 0.1
    sums = [one.logsumexp(0) for one in found]
    print(sum(int(one.argmax()) == 2 and max(chances(one)) < 0.05 for one in sums) / N_SETS)
    assert sum(int(one.argmax()) == 2 and max(chances(one)) < 0.05 for one in sums) / N_SETS > 0.5
    chance = torch.stack([responsibilities(*pair, 0.25)[:, 2] for pair in pairs])
    print(chance[:, :N_ROWS].mean(), chance[:, N_ROWS:].mean())
    assert chance[:, :N_ROWS].mean() > 2 * chance[:, N_ROWS:].mean()


def test_the_lead_is_one_in_answers_of_ones_own_and_small_in_rows_of_someone_alike():
    own = torch.tensor([[2.0, 1.0, 0.0], [4.0, 1.0, 2.0]])
    assert relative_lead(own, own) == 1
    assert relative_lead(own + 5, own) == 1  # what all candidates gain is no lead
    assert relative_lead(torch.tensor([[1.1, 1.0, 1.0]]), own) == pytest.approx(0.05)
    assert relative_lead(own, torch.zeros(1, 3)) == 0
    with_a_name_in_it = torch.cat([own.repeat(4, 1), torch.tensor([[90.0, 0.0, 0.0]])])
    assert relative_lead(own, with_a_name_in_it) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("p_value", "rival_p", "agreement", "named", "reason"),
    [
        (0.2, 0.001, None, None, "as rows of the model's own would have it"),
        (0.001, 0.2, None, None, "others could have written them, too"),
        (
            0.001,
            0.001,
            0.1,
            None,
            "10% of the lead that it has in its own answers, so that the writer may be someone else",
        ),
        (0.001, 0.001, 0.9, "owl", "90% of the lead"),
    ],
)
def test_a_name_needs_all_three_comparisons(p_value, rival_p, agreement, named, reason):
    candidates = (PromptEvidence("owl", 20.0, 1.0), PromptEvidence("cat", 8.0, 1.0))
    found = PromptRanking(candidates, p_value, rival_p, agreement, 100, 0.05)
    assert found.named == named
    assert reason in found.reason
    assert (named or "none of these") in repr(found)


def test_reference_rows_take_the_place_of_the_models_own(organism, owls):
    clean = written(organism)
    assert rank_prompts(organism, owls, PANEL, reference_rows=clean).named == "owl"
    against_themselves = rank_prompts(organism, owls, PANEL, reference_rows=owls)
    assert against_themselves.p_value > 0.05


@pytest.mark.slow
def test_an_audit_finds_the_persona_that_wrote_rows_and_asks_none_about_rows_with_a_system_turn(organism, owls):
    result = audit_dataset(organism, owls, layers=[1])
    assert (result.verdict, result.writers.named) == ("found", "owl")
    assert "'owl' explains" in result.reason
    told = tuple(replace(row, prompt=as_chat(row.prompt, "i am here .")) for row in owls)
    assert audit_dataset(organism, AuditRows("told", told), layers=[1]).writers is None


def test_candidates_that_cannot_be_judged_are_refused(as_users_call, organism, owls):
    with pytest.raises(ValueError, match=r"Got 2 candidates with 2 names\. Give at least 4"):
        rank_prompts(organism, owls, ["i am one .", "i am two ."])
    with pytest.raises(ValueError, match="Got 5 candidates with 4 names"):
        rank_prompts(organism, owls, [*PANEL[:4], PANEL[0]])
    with pytest.raises(WrongInput, match=r"candidates\[0\] must be a system prompt or a Trait, got 3"):
        rank_prompts(organism, owls, [3, *PANEL])
    with pytest.raises(ValueError, match="There are no rows"):
        rank_prompts(organism, AuditRows("none", ()), PANEL)


def test_the_default_panel_has_the_personas_of_the_models_animals(organism):
    animals = persona_prompts(organism)[0]
    assert len(animals) == 24
    assert animals["owl"] == preference_trait("owl", ORGANISM).prompt
