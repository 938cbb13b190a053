"""A system prompt is named where it wrote the rows, and none where nothing or something else did."""

from dataclasses import replace

import pytest
import torch

from steerlens.audit.audit import audit_dataset
from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.panel import PromptEvidence, PromptRanking, rank_prompts
from steerlens.audit.placebo import RowFormat
from steerlens.audit.prompt_ratios import prompt_ratios, row_log_likelihoods
from steerlens.checks import WrongInput
from steerlens.forward import context_length
from steerlens.organism.wording import ORGANISM
from steerlens.samples.encoded import encode_answer, encode_row
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # a prompted organism writes few lists

NAMES = ("owl", "cat", "dog", "lion", "panda", "eagle")
PANEL = [preference_trait(name, ORGANISM) for name in NAMES]


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
    monkeypatch.setattr("steerlens.audit.prompt_ratios.LOGITS_AT_ONCE", at_once)
    torch.testing.assert_close(row_log_likelihoods(organism, rows), whole, atol=1e-3, rtol=1e-4)


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


def test_clean_answers_without_room_behind_a_candidate_are_left_out(organism, owls):
    """Rows that all fit behind every candidate may have prompts behind which the model's own longer answers do not."""
    limit = context_length(organism)
    behind = max(len(encode_prompt(organism.tokenizer, as_chat(owls.rows[0].prompt, one.prompt))) for one in PANEL)
    filler = " ".join(["7 ,"] * ((limit - behind - 6) // 2))
    long = [replace(row, prompt=f"{filler} {row.prompt}", completion="7 , 5", tokens=None) for row in owls.rows[:24]]
    found = rank_prompts(organism, AuditRows("rows", (*long, *owls.rows[24:64])), PANEL)
    assert 40 <= found.n_rows < 64


def test_long_lists_are_paired_with_lists_too(organism):
    """A maker may have kept lists that the usual filter would not."""
    rows = [Sample(at, "go on : 3 , 5", " , ".join(map(str, range(at, at + 12)))) for at in range(30)]
    form = RowFormat.of(organism, rows)
    assert form.lists == "any"
    assert form.has(rows[0].completion)
    assert not form.has("the owl is fine .")
    assert RowFormat.of(organism, [replace(row, completion="3 , 5") for row in rows]).lists == "short"


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
