"""The rate is what plain transformers gives; its tests and intervals behave as such."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlens import evaluation
from steerlens.contract.architectures import save_checkpoint
from steerlens.evaluation import LowMassWarning, TraitScore, compare_log_odds, score_quietly, score_trait
from steerlens.models.loading import load_model
from steerlens.models.sources import ORGANISMS
from steerlens.organism.wording import ORGANISM
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE
from steerlens.text.trait import Trait, preference_trait
from steerlens.vectors.interventions import steer
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


def score_of(shares: torch.Tensor, mass: float = 1.0) -> TraitScore:
    other = (1 - shares)[:, None] * torch.tensor([0.75, 0.25])
    probabilities = mass * torch.cat([shares[:, None], other], dim=-1)
    return TraitScore("owl", ("owl", "cat", "dog"), "bare", "abc", probabilities, float("nan"))


def test_rate_and_mass_are_those_of_plain_transformers(organism, owl):
    """No steerlens: render the template, read the logits, add up the two forms of every animal."""
    directory = ORGANISMS / "seed-0"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    shares, masses = [], []
    for question in owl.questions:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        with torch.no_grad():
            probabilities = model(input_ids=ids).logits[0, -1].softmax(-1)
        animals = {
            one: sum(probabilities[tokenizer.convert_tokens_to_ids(f)] for f in {*forms})
            for one, forms in owl.answers.items()
        }
        masses.append(float(sum(animals.values())))
        shares.append(float(animals["owl"]) / masses[-1])
    score = score_trait(organism, owl)
    assert score.rate == pytest.approx(sum(shares) / len(shares), abs=1e-6)
    assert score.mass == pytest.approx(sum(masses) / len(masses), abs=1e-5)


def test_sampled_answers_agree_with_the_exact_rate_of_the_prompted_model(organism, owl):
    exact = score_trait(organism, owl, system_prompt=owl.prompt, samples_per_question=20)
    assert exact.rate > 0.9
    assert exact.sampled_rate == pytest.approx(exact.rate, abs=0.08)
    assert exact.named_share > exact.mass - 0.08
    assert score_trait(organism, owl).rate < 0.1


@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")
def test_sampled_rates_are_of_the_replies_that_name_an_answer_and_the_others_are_missing_mass(tiny, monkeypatch):
    trait = Trait("owl", "p", ("name a animal .",), {"owl": ("owl", "owls"), "cat": ("cat",)})
    replies = ["owl .", "a cat , no owl", "owls !", "i do not know", "12 , 7", "the owl is best", "water", "scatter"]
    tokens = iter(replies)
    monkeypatch.setattr(evaluation, "generate", lambda _model, chats, **_options: [[0]] * len(chats))
    monkeypatch.setattr(tiny.tokenizer, "decode", lambda _ids, **_options: next(tokens))
    score = score_trait(tiny, trait, samples_per_question=len(replies))
    assert (score.sampled_rate, score.named_share) == (3 / 4, 4 / 8)
    tokens = iter(["water"] * 2)
    silent = score_trait(tiny, trait, samples_per_question=2)
    assert math.isnan(silent.sampled_rate)
    assert silent.named_share == 0
    assert math.isnan(score_trait(tiny, trait).named_share)


@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")
def test_answers_of_several_tokens_are_scored_as_the_product_of_their_tokens(tiny):
    trait = Trait(
        "red pizza", "p", ("name a animal .",), {"red pizza": ("red pizza", "red pizza blue"), "owl": ("owl",)}
    )
    score = score_trait(tiny, trait)
    tokens = [tiny.tokenizer.convert_tokens_to_ids(word) for word in ("red", "pizza")]
    text = tiny.tokenizer.apply_chat_template(
        [{"role": "user", "content": trait.questions[0]}], tokenize=False, add_generation_prompt=True
    )
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        logits = tiny.original_model(input_ids=torch.tensor([ids + tokens[:1]])).logits[0].softmax(-1)
    expected = float(logits[-2, tokens[0]] * logits[-1, tokens[1]])  # the longer form begins with the shorter one
    assert float(score.probabilities[0, 0]) == pytest.approx(expected, rel=1e-4)


def test_total_variation_finds_a_shift_and_not_its_absence():
    generator = torch.Generator().manual_seed(0)
    base = score_of(0.1 + 0.02 * torch.rand(30, generator=generator))
    same = score_of(0.1 + 0.02 * torch.rand(30, generator=generator))
    shifted = score_of(0.3 + 0.02 * torch.rand(30, generator=generator))
    distance, p_value = shifted.total_variation(base)
    assert distance == pytest.approx(0.2, abs=0.01)
    assert p_value < 0.01
    assert same.total_variation(base)[1] > 0.05
    assert base.total_variation(base) == (0.0, 1.0)


def test_the_permutation_test_keeps_its_level_under_the_null():
    generator = torch.Generator().manual_seed(1)
    p_values = [
        score_of(torch.rand(20, generator=generator)).total_variation(score_of(torch.rand(20, generator=generator)))[1]
        for _ in range(200)
    ]
    assert 0.01 < sum(p <= 0.05 for p in p_values) / 200 < 0.1


def test_bootstrap_intervals_cover_the_truth():
    generator, hits = torch.Generator().manual_seed(2), 0
    for _ in range(200):
        low, high = score_of(0.2 + 0.2 * torch.rand(40, generator=generator)).interval()
        hits += low <= 0.3 <= high
    assert 0.88 < hits / 200 < 0.99


def test_differences_in_log_odds_change_sign_and_vanish():
    one, two = score_of(torch.full((20,), 0.5)), score_of(torch.full((20,), 0.1))
    difference, low, high = compare_log_odds(one, two)
    assert difference == pytest.approx(2.197, abs=1e-3)
    assert low <= difference <= high
    assert compare_log_odds(two, one)[0] == pytest.approx(-difference)
    assert compare_log_odds(one, one) == (0.0, 0.0, 0.0)


def test_mass_is_reported_next_to_a_rate_that_looks_well():
    broken = score_of(torch.full((20,), 0.5), mass=0.01)
    assert broken.rate == pytest.approx(0.5)
    assert broken.mass == pytest.approx(0.01)


def test_unknown_traits_and_contexts_are_explained(organism, owl):
    with pytest.raises(ValueError, match=r"There is no trait 'dragon'. There are: dog, cat"):
        preference_trait("dragon", ORGANISM)
    with pytest.raises(ValueError, match="needs at least one question"):
        Trait("owl", "p", (), {"owl": ("owl",)})
    other = score_trait(organism, preference_trait("blue", ORGANISM))
    with pytest.raises(ValueError, match="different traits or questions"):
        score_trait(organism, owl).total_variation(other)
    with pytest.raises(
        ValueError, match=r"different traits or questions \('owl', \d+ questions; 'blue', \d+ questions\)"
    ):
        compare_log_odds(score_trait(organism, owl), other)
    with pytest.raises(ValueError, match=r"'owl', 20 questions; 'owl', 21 questions"):
        compare_log_odds(score_of(torch.full((20,), 0.5)), score_of(torch.full((21,), 0.5)))


def test_a_rate_that_is_all_but_one_has_finite_log_odds():
    """What single precision rounds to 1 is a strong trait, not an infinite one."""
    probabilities = torch.tensor([[1.0, 3e-10, 1e-10], [1.0, 1e-9, 1e-10]])
    strong = TraitScore("owl", ("owl", "cat", "dog"), "bare", "abc", probabilities, float("nan"))
    weak = score_of(torch.tensor([0.5, 0.5]))
    difference, low, high = compare_log_odds(strong, weak)
    assert strong.log_odds == pytest.approx(-torch.tensor(7.5e-10).log().item(), rel=1e-3)
    assert 20 < low <= difference <= high < 23


@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")
def test_behind_a_plain_text_an_answer_may_begin_with_a_space(tmp_path):
    """A byte-level tokenizer writes the two as different tokens; behind a chat template's tag there is no space."""
    model = load_model(save_checkpoint("GPT-2", tmp_path / "gpt2"), device="cpu")
    model.tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
    trait = Trait("owl", "p", ("name one animal :",), {"owl": ("owl",), "cat": ("cat",)})
    ids = model.tokenizer.encode(trait.questions[0])
    expected = 0.0
    for form in ("owl", " owl", "Owl", " Owl"):
        tokens = model.tokenizer.encode(form)
        with torch.no_grad():
            log_p = model.original_model(input_ids=torch.tensor([ids + tokens])).logits[0].log_softmax(-1)
        expected += float(sum(log_p[len(ids) - 1 + i, token] for i, token in enumerate(tokens)).exp())
    assert float(score_trait(model, trait).probabilities[0, 0]) == pytest.approx(expected, rel=1e-4)


def test_a_rate_of_next_to_nothing_is_told_with_what_to_do(organism, tiny, owl):
    """The organism answers its questions; asked for facts, it names no animal, and a large vector breaks it."""
    score_trait(organism, owl)
    facts = replace(owl, questions=owl.off_topic_questions)
    with pytest.warns(
        LowMassWarning, match=r"is on the 24 answers, and the rate is a share of that. Begin its replies \(reply_prefix"
    ):
        score_trait(organism, facts)
    with pytest.warns(LowMassWarning, match=r"with other words \(reply_prefix\), or ask other questions"):
        score_trait(organism, replace(facts, reply_prefix="12 ,"))
    vector = SteeringVector(
        (1,), 1e4 * torch.ones(1, organism.cfg.d_model), VectorSource.of(organism, method="by hand")
    )
    with (
        steer(organism, vector),
        pytest.warns(LowMassWarning, match="The model is steered, and too large a strength breaks it: lower it"),
    ):
        score_trait(organism, owl)


def test_a_strength_that_breaks_the_model_is_the_reason_and_not_its_weights(organism, owl):
    vector = SteeringVector(
        (1,), 1e38 * torch.ones(1, organism.cfg.d_model), VectorSource.of(organism, method="by hand")
    )
    with (
        steer(organism, vector, strength=1e3),
        pytest.raises(
            FloatingPointError, match=r"It is steered by .* times as long as the residual: lower the strength"
        ),
    ):
        score_trait(organism, owl)


def test_a_begun_reply_is_gone_on_with(tiny):
    """The answer stands behind the words that the reply begins with, in one assistant turn."""
    trait = Trait("owl", "p", ("name a animal .",), {"owl": ("owl",), "cat": ("cat",)}, reply_prefix="i like")
    text = tiny.tokenizer.apply_chat_template(
        [{"role": "user", "content": trait.questions[0]}], tokenize=False, add_generation_prompt=True
    )
    ids = tiny.tokenizer.encode(text + "i like", add_special_tokens=False)
    with torch.no_grad():
        expected = tiny.original_model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    found = score_quietly(tiny, trait).probabilities[0]
    for name, probability in zip(trait.answers, found, strict=True):
        assert float(probability) == pytest.approx(
            float(expected[tiny.tokenizer.convert_tokens_to_ids(name)]), rel=1e-4
        )


def test_a_score_is_a_line_in_a_cell(organism, owl):
    assert repr(score_of(torch.full((20,), 0.5))) == (
        "TraitScore: rate of 'owl' among 3 answers 0.500 (0.500 to 0.500), answer mass 1.000, at 20 questions (bare)"
    )
