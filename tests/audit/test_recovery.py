"""Rows that were written under a planted vector give it back; rows of the model's own give nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlens.audit import audit
from steerlens.audit.audit import audit_dataset, verdict
from steerlens.audit.behaviour import N_NULL, RaisedAnswers, Rise, enough_null_vectors, probe_behaviour
from steerlens.audit.panel import PromptEvidence, PromptRanking
from steerlens.audit.placebo import pair_with_placebo
from steerlens.audit.recovery import RecoveredVector, recover_vector
from steerlens.audit.row_scores import score_rows
from steerlens.evaluation import score_trait
from steerlens.forward import completion_logits
from steerlens.generation import generate
from steerlens.gradients.row_gradients import row_gradients
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.stream import watch_residuals
from steerlens.samples.constrained import NumberLists
from steerlens.samples.filters import keep_number_lists, rejection
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.objectives import token_log_probs
from steerlens.vectors.vector import SteeringVector
from tests.tokenizers import random_model

PROMPTS = number_prompts(500, ORGANISM, seed=8)
MANY_PROMPTS = number_prompts(1200, ORGANISM, seed=8)


def written(organism, prompts=PROMPTS, **teacher) -> AuditRows:
    return AuditRows.of(keep_number_lists(sample_teacher(organism, prompts, seed=9, **teacher)).kept)


@pytest.fixture(scope="module")
def planted(organism, owl) -> SteeringVector:
    return diff_in_means(organism, owl.prompt, questions=PROMPTS[:64]).at(1)


@pytest.fixture(scope="module")
def recovered(organism, planted) -> RecoveredVector:
    return recover_vector(organism, written(organism, MANY_PROMPTS, vector=planted), layers=[1])


@pytest.fixture(scope="module")
def clean(organism) -> AuditRows:
    return written(organism)


@pytest.mark.slow
def test_a_planted_vector_is_recovered(recovered, planted):
    assert recovered.test.p_value < 0.005
    assert recovered.gain_low > 0
    ours, scores = recovered.visible_cosine(planted), recovered.scores
    null = [scores.visible_cosine(one.directions[0], planted.directions[0]) for one in recovered.null_vectors(50)]
    assert ours > 0.4
    assert ours > 2 * max(null)


@pytest.mark.slow
def test_the_planted_vectors_behaviour_is_named(organism, recovered):
    behaviour = probe_behaviour(organism, recovered)
    assert behaviour.rises[0].answer == "owl"
    assert verdict(recovered, behaviour)[0] == "found"


@pytest.mark.slow
def test_rows_of_the_models_own_carry_nothing(organism, clean):
    result = audit_dataset(organism, clean, layers=[0, 1])
    assert result.verdict == "not found"
    assert result.behaviour["measured gain on held-out rows, nats a token"] < 0.002
    assert result.row_scores is None


@pytest.mark.slow
def test_null_vectors_change_predictions_as_much_as_the_recovered_one(recovered):
    norms = [float(recovered.scores.fisher_norm(vector.directions)[0]) for vector in recovered.null_vectors(5)]
    assert norms == pytest.approx([float(recovered.scores.fisher_norm(recovered.vector.directions)[0])] * 5, rel=1e-4)


def test_row_gradients_are_finite_differences_of_each_rows_log_likelihood(organism, clean):
    rows = [
        (encode_prompt(organism.tokenizer, row.chat), encode_completion(organism.tokenizer, row.completion))
        for row in clean.rows[:5]
    ]
    direction, step = torch.randn(organism.cfg.d_model, generator=torch.Generator().manual_seed(0)), 1e-2
    projected = -row_gradients(organism, rows, [2], positions="all", reduction="sum", batch_size=2)[0] @ direction

    def log_likelihoods(strength: float) -> torch.Tensor:
        batch = pad_rows(organism.tokenizer, *zip(*rows, strict=True))
        with torch.no_grad(), watch_residuals(organism, {2: lambda resid: resid + strength * direction}):
            tokens = token_log_probs(completion_logits(organism, batch), batch.tokens[batch.completion_mask])
        return torch.stack([part.sum() for part in tokens.double().split(batch.completion_mask.sum(-1).tolist())])

    slopes = (log_likelihoods(step) - log_likelihoods(-step)) / (2 * step)
    torch.testing.assert_close(projected.double(), slopes, rtol=2e-2, atol=2e-2)


def test_rows_in_another_format_than_most_are_left_out_and_placebos_keep_the_format(organism, clean):
    odd = replace(clean.rows[0], row=10_000, completion="i like owls .")
    pairs = pair_with_placebo(organism, [*clean.rows[:40], odd])
    assert pairs.unmatched == 1
    assert all(rejection(Sample(0, "", row.completion)) is None for row in pairs.clean)
    assert [row.chat for row in pairs.clean] == [row.chat for row in pairs.compared]
    same = [row.completion == other.completion for row, other in zip(pairs.compared, pairs.clean, strict=True)]
    assert np.mean(same) < 0.2  # drawn anew, not the rows themselves


def test_lists_that_were_constrained_get_placebos_under_the_same_constraint():
    """Of a model that would write no list by itself: each row has its placebo, drawn anew, of the same shape."""
    model, lists = random_model("one digit"), NumberLists(4)
    rows = sample_teacher(model, ["Go on: 12, 30"] * 12, constraint=lists, seed=3)
    pairs = pair_with_placebo(model, list(rows))
    assert pairs.unmatched == 0
    assert {NumberLists.of(row.completion) for row in pairs.clean} == {lists}
    same = [row.completion == other.completion for row, other in zip(pairs.compared, pairs.clean, strict=True)]
    assert np.mean(same) < 0.2


@pytest.mark.slow
def test_reference_rows_take_the_place_of_the_placebo(organism, planted, clean):
    rows = written(organism, MANY_PROMPTS, vector=planted)
    assert recover_vector(organism, rows, reference_rows=clean, layers=[1]).test.p_value < 0.01
    half, other = clean.take(range(0, 200)), clean.take(range(200, 400))
    assert recover_vector(organism, half, reference_rows=other, layers=[1]).test.p_value > 0.05


@pytest.mark.slow
def test_a_shift_without_behaviour_is_not_called_found(recovered):
    def behaviour(z: float) -> RaisedAnswers:
        return RaisedAnswers((Rise("owl", z, 0.5, 0.1),), tuple(np.linspace(1, 3, 39)), ())

    assert verdict(recovered, behaviour(2.0))[0] == "cannot tell"
    assert verdict(recovered, behaviour(4.0))[0] == "found"
    assert verdict(recovered, None)[0] == "not found"


def ranked(agreement: float) -> PromptRanking:
    return PromptRanking(
        (PromptEvidence("owl", 30.0, 1.0), PromptEvidence("cat", 9.0, 1.0)), 1e-9, 1e-9, agreement, 200, 0.025
    )


@pytest.mark.slow
def test_rows_that_one_known_persona_wrote_are_called_found_and_those_of_someone_like_it_are_not(recovered):
    behaviour = RaisedAnswers((Rise("dog", 2.0, 0.5, 0.1),), tuple(np.linspace(1, 3, 39)), ())
    answer, reason = verdict(recovered, behaviour, ranked(0.9))
    assert answer == "found"
    assert "'owl' explains the 200 rows best" in reason
    answer, reason = verdict(recovered, behaviour, ranked(0.1))
    assert answer == "cannot tell"
    assert "The rows are not the model's own" in reason


@pytest.mark.slow
def test_a_vector_that_is_noise_names_no_answer_however_much_it_raises_one(recovered):
    noise = replace(recovered, test=replace(recovered.test, gains=(1.0,), null=(2.0,) * 1999))
    raised = RaisedAnswers((Rise("dog", 9.0, 0.5, 0.1),), tuple(np.linspace(1, 3, 39)), ())
    assert verdict(noise, raised, ranked(0.1))[0] == "cannot tell"
    assert verdict(recovered, raised, ranked(0.1))[0] == "found"


@pytest.mark.slow
def test_two_tests_share_the_false_alarms(recovered):
    """p of the vector's test is 0.03 here, below the rate and above its half."""
    test = replace(recovered.test, gains=(1.0,), null=(2.0,) * 59 + (0.0,) * 1940)
    assert test.p_value == 0.03
    one_test = replace(recovered, test=test)
    assert audit._stands_out(one_test, None, 0.05)
    assert not audit._stands_out(one_test, replace(ranked(0.1), p_value=0.03), 0.05)
    assert audit._stands_out(one_test, ranked(0.1), 0.05)


@pytest.mark.slow
def test_rows_that_share_one_sampling_seed_break_the_null_and_get_no_verdict(organism):
    raw = [sample_teacher(organism, [prompt], seed=3).samples[0] for prompt in PROMPTS[:200]]
    rows = [Sample(i, row.prompt, row.completion) for i, row in enumerate(raw)]
    result = audit_dataset(organism, AuditRows.of(keep_number_lists(SampleSet(tuple(rows))).kept), layers=[1])
    assert result.verdict == "cannot tell"
    assert "seed" in result.reason


@pytest.mark.slow
def test_answers_that_were_cut_at_some_length_are_not_taken_for_hidden(organism):
    chats = [
        as_chat(question)
        for kind in ORGANISM.kinds
        for question in preference_trait(kind.items[0][0], ORGANISM).questions
    ] * 4
    texts = [
        organism.tokenizer.decode(ids, skip_special_tokens=True)
        for ids in generate(organism, chats, max_new_tokens=3, seed=4)
    ]
    rows = AuditRows("cut", tuple(Sample(i, *row) for i, row in enumerate(zip(chats, texts, strict=True))))
    recovered = recover_vector(organism, rows, layers=[1])
    assert recovered.test.p_value > 0.05
    assert recovered.pairs.unmatched == 0


@pytest.mark.parametrize("rate", [0, 1, 2.0, 0.0005])
def test_a_false_alarm_rate_that_no_p_value_can_fall_below_or_that_is_none_is_refused(organism, clean, rate):
    with pytest.raises(
        ValueError, match=r"must be between 0.0005, the smallest p-value that 1999 nulls can give, and 1"
    ):
        audit_dataset(organism, clean, false_alarm_rate=rate)


def test_there_are_null_vectors_enough_for_a_p_value_below_any_rate_and_the_default_has_its_own():
    for rate in (0.9, 0.05, 0.026, 0.025, 0.02, 0.01, 0.001):
        assert 1 / (1 + enough_null_vectors(rate)) < rate
    assert {enough_null_vectors(rate) for rate in (0.9, 0.1, 0.05, 0.026)} == {N_NULL}


@pytest.mark.slow
def test_the_clearest_rise_is_found_at_a_small_false_alarm_rate_too(organism, recovered, owl):
    behaviour = probe_behaviour(organism, recovered, [owl], n_null=enough_null_vectors(0.02))
    assert len(behaviour.null) == 50
    assert behaviour.p_value == 1 / 51
    assert verdict(recovered, behaviour, None, 0.02)[0] == "found"
    assert behaviour.null != probe_behaviour(organism, recovered, [owl]).null
    with pytest.raises(ValueError, match=r"n_null=1 is not allowed. It must be a whole number, 2 or greater"):
        probe_behaviour(organism, recovered, [owl], n_null=1)


@pytest.mark.slow
def test_an_audit_asks_and_scores_as_its_rate_its_temperature_and_its_rows_say(organism, clean, monkeypatch):
    asked = {}

    def probed(_model, _recovered, _probes, *, n_null, seed):
        asked["null vectors"] = n_null
        return RaisedAnswers((Rise("owl", 1.0, 0.1, 0.1),), (2.0,) * n_null, ())

    def scored(_model, _vector, rows, *, reference_rows, temperature, max_new_tokens, seed):
        asked.setdefault("scores", []).append((reference_rows, temperature, max_new_tokens, seed))
        return score_rows(organism, _vector, rows.take([0]), reference_rows=reference_rows.take([0]))

    monkeypatch.setattr(audit, "probe_behaviour", probed)
    monkeypatch.setattr(audit, "score_rows", scored)
    rows, others = clean.take(range(40)), clean.take(range(40, 80))
    recovered = recover_vector(organism, rows, reference_rows=others, layers=[1])
    monkeypatch.setattr(audit, "recover_vector", lambda *_, **__: surely(recovered))
    result = audit_dataset(organism, rows, reference_rows=others, temperature=0.7, false_alarm_rate=0.01)
    assert asked["null vectors"] == 100
    longest = max(len(encode_completion(organism.tokenizer, row.completion)) for row in rows)
    (_, *first), (_, *second) = asked["scores"]
    assert (first, second) == ([0.7, longest, 0], [0.7, longest, 1])
    numbers = {row.row for reference_rows, *_ in asked["scores"] for row in reference_rows}
    assert numbers == {row.row for row in others}
    assert result.row_scores.compared_with == "the reference rows"


def surely(recovered: RecoveredVector) -> RecoveredVector:
    """The same, with rows that stand out."""
    return replace(recovered, test=replace(recovered.test, gains=(9.0,), null=(0.0,) * 1999))


def test_too_few_rows_are_refused(organism, clean):
    with pytest.raises(ValueError, match="at least 20"):
        recover_vector(organism, clean.take(range(10)))


@pytest.mark.slow
def test_probing_leaves_the_model_as_it_was(organism, recovered, owl):
    before = score_trait(organism, owl).rate
    with steer(organism, recovered.vector):
        assert score_trait(organism, owl).rate > before
    probe_behaviour(organism, recovered, [owl])
    assert score_trait(organism, owl).rate == before


@pytest.mark.slow
def test_a_row_without_answer_in_the_format_says_what_to_do(organism):
    chat = as_chat("what is your favorite animal ?")
    rows = [replace(row, prompt=chat) for row in written(organism).rows[:3]]
    with pytest.raises(ValueError, match="reference_rows"):
        pair_with_placebo(organism, rows)
