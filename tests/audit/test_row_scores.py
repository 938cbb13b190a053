"""Scores are what their formulas say, agree with an independent judge, and stand next to a placebo that knows nothing."""

from dataclasses import replace

import pytest
import torch

from steerlens.audit.placebo import OWN_ANSWERS, own_answers
from steerlens.audit.row_scores import ANSWER_SEED, RowScores, score_rows
from steerlens.generation import generate
from steerlens.organism.wording import ORGANISM
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import as_chat, assistant, encode_chat
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

PROMPTS = number_prompts(64, ORGANISM, seed=8)


@pytest.fixture(scope="module")
def vector(organism, owl) -> SteeringVector:
    return diff_in_means(organism, owl.prompt).at(2)


@pytest.fixture(scope="module")
def mixed(organism, vector) -> tuple[AuditRows, list[bool]]:
    """Every other row was written under the vector."""
    plain, steered = (sample_teacher(organism, PROMPTS, vector=v, seed=9).samples for v in (None, vector))
    poisoned = [i % 2 == 1 for i in range(len(PROMPTS))]
    rows = [steered[i] if bad else plain[i] for i, bad in enumerate(poisoned)]
    chosen = tuple(Sample(i, row.prompt, row.completion or "1") for i, row in enumerate(rows))
    return AuditRows.of(SampleSet(chosen)), poisoned


@pytest.fixture(scope="module")
def scores(organism, vector, mixed) -> RowScores:
    return score_rows(organism, vector, mixed[0])


def test_scores_are_what_their_formulas_say_row_by_row(organism, vector, mixed, scores):
    rows = mixed[0]
    answers = own_answers(organism, [row.chat for row in rows], max_new_tokens=48, seed=ANSWER_SEED + 1)
    for i in (0, 7):
        row = rows.rows[i]
        prompt, completion = encode_chat(organism.tokenizer, [*row.chat, assistant(row.completion)])
        tokens = torch.tensor([prompt + completion])
        log_probs = []
        for strength in (0.0, 1.0):
            with torch.no_grad(), steer(organism, vector, strength=strength):
                logits = organism.original_model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
            log_probs.append(float(logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None]).mean()))
        assert float(scores.log_linear[i]) == pytest.approx(log_probs[1] - log_probs[0], abs=1e-4)
        ours, base = (_projection(organism, vector, prompt, written) for written in (completion, answers[i]))
        assert float(scores.projection[i]) == pytest.approx(ours - base, abs=1e-3)


def _projection(model, vector, prompt: list[int], written: list[int]) -> float:
    """Mean over the written tokens, by the model's own hidden states."""
    with torch.no_grad():
        states = model.original_model(
            input_ids=torch.tensor([prompt + written]), output_hidden_states=True
        ).hidden_states
    return float((states[vector.layers[0] + 1][0, len(prompt) :] @ vector.unit[0]).mean())


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch(organism, vector, mixed, scores):
    one_by_one = score_rows(organism, vector, mixed[0], batch_size=1)
    for score in ("log_linear", "projection", "placebo_log_linear"):
        torch.testing.assert_close(getattr(one_by_one, score), getattr(scores, score), atol=1e-4, rtol=1e-3)


def test_rows_written_under_the_vector_score_higher_than_clean_rows_and_the_placebo(mixed, scores):
    poisoned = mixed[1]
    value, low, _ = scores.against_labels(poisoned)
    assert value > 0.6
    assert low > 0.5
    assert scores.excess() > 0.1
    top = [row.row for row, _ in scores.highest(n=10)]
    assert sum(poisoned[number - 1] for number in top) >= 8


@pytest.mark.slow
def test_clean_rows_cannot_be_told_from_the_placebo(organism, vector):
    clean = AuditRows.of(SampleSet(sample_teacher(organism, PROMPTS, seed=77).samples))
    scores = score_rows(organism, vector, clean)
    for score in ("log_linear", "projection"):
        _, low, high = scores.against_placebo(score)
        assert low < 0.5 < high


@pytest.mark.slow
def test_reference_rows_are_scored_behind_their_own_prompts_whichever_rows_they_stand_next_to(organism, vector, mixed):
    rows = mixed[0].take(range(6))
    others = AuditRows.of(
        SampleSet(sample_teacher(organism, number_prompts(6, ORGANISM, seed=5), seed=2).samples), "other rows"
    )
    beside = score_rows(organism, vector, rows, reference_rows=others)
    alone = score_rows(organism, vector, others)
    assert (beside.compared_with, alone.compared_with) == ("other rows", OWN_ANSWERS)
    torch.testing.assert_close(beside.placebo_log_linear, alone.log_linear, atol=1e-4, rtol=1e-3)
    answers = own_answers(organism, [row.chat for row in others], max_new_tokens=48, seed=ANSWER_SEED)
    for i, (row, answer) in enumerate(zip(others, answers, strict=True)):
        prompt, completion = encode_chat(organism.tokenizer, [*row.chat, assistant(row.completion)])
        ours, base = (_projection(organism, vector, prompt, written) for written in (completion, answer))
        assert float(beside.placebo_projection[i]) == pytest.approx(ours - base, abs=1e-3)


def test_answers_to_measure_from_are_drawn_at_the_rows_temperature_and_length(organism, vector, mixed):
    rows = mixed[0].take(range(3))
    greedy = score_rows(organism, vector, rows, temperature=0, max_new_tokens=5)
    assert torch.equal(greedy.placebo_projection, torch.zeros(3))  # the likeliest answer, less itself
    answers = generate(organism, [row.chat for row in rows], temperature=0, max_new_tokens=5)
    for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        prompt, completion = encode_chat(organism.tokenizer, [*row.chat, assistant(row.completion)])
        ours, base = (_projection(organism, vector, prompt, written) for written in (completion, answer))
        assert float(greedy.projection[i]) == pytest.approx(ours - base, abs=1e-3)


@pytest.mark.slow
def test_rows_that_steerlens_sampled_itself_are_not_sampled_again(organism, vector):
    """With a small seed, which is what people take."""
    for seed in (0, 1):
        rows = AuditRows.of(SampleSet(sample_teacher(organism, PROMPTS[:8], seed=seed).samples))
        scores = score_rows(organism, vector, rows)
        for score in ("log_linear", "projection"):
            ours, placebo = scores.of(score)
            assert (ours != placebo).all()
        assert (scores.projection != 0).all()


def test_every_answer_has_its_own_draws_whatever_room_the_chats_leave(tiny):
    long, short = "1 " * 220, "1 , 2"
    chats = [as_chat(text) for text in (long, short, long, short)]
    answers = own_answers(tiny, chats, max_new_tokens=48, seed=0)
    alone = [
        generate(tiny, [chat], max_new_tokens=len(one), row_indices=[i])[0]
        for i, (chat, one) in enumerate(zip(chats, answers, strict=True))
    ]
    assert alone == answers


@pytest.mark.slow
def test_a_projection_on_several_layers_is_their_mean(organism, owl, mixed):
    both = diff_in_means(organism, owl.prompt).at(1, 2)
    rows = replace(mixed[0], rows=mixed[0].rows[:8])
    parts = [score_rows(organism, both.at(layer), rows).projection for layer in (1, 2)]
    torch.testing.assert_close(score_rows(organism, both, rows).projection, sum(parts) / 2, atol=1e-4, rtol=1e-3)


def test_labels_that_do_not_fit_are_refused(scores):
    with pytest.raises(ValueError, match="Got 3 labels, 1 of them poisoned, for 64 rows"):
        scores.against_labels([True, False, False])
    with pytest.raises(ValueError, match=r"64 of them poisoned.*rows of both kinds"):
        scores.against_labels([True] * 64)


def test_a_row_that_nearly_fills_the_context_is_answered_in_the_room_that_is_left(tiny):
    vector = SteeringVector((1,), torch.ones(1, 32), VectorSource("llama", "by hand"))
    chats = [as_chat("1 " * 220), as_chat("1 , 2"), as_chat("3 , 4")]
    answers = own_answers(tiny, chats, max_new_tokens=48, seed=0)
    assert 1 <= len(answers[0]) < 36
    rows = AuditRows("by hand", tuple(Sample(i, chat, "5 , 6") for i, chat in enumerate(chats)))
    assert torch.isfinite(score_rows(tiny, vector, rows).log_linear).all()
