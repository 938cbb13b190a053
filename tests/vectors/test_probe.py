"""A probe of the plain model finds nothing, a broken model is found broken, and without a trait nothing is made up."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlens.evaluation import LowMassWarning, compare_log_odds, score_trait
from steerlens.forward import completion_logits
from steerlens.generation import generate
from steerlens.models.bridge import huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.trait import Trait
from steerlens.vectors.config import FitConfig
from steerlens.vectors.interventions import steer
from steerlens.vectors.probe import N_UNRELATED, Probe
from steerlens.vectors.vector import SteeringVector, VectorSource

CONFIG = FitConfig(max_new_tokens=5)


def vector_of(model, direction: torch.Tensor, layer: int = 1) -> SteeringVector:
    return SteeringVector((layer,), direction[None], VectorSource(model.cfg.model_name, "by hand"))


def random_vector(model, norm: float, seed: int = 0) -> SteeringVector:
    direction = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return vector_of(model, norm * direction / direction.norm())


def test_the_plain_model_is_undamaged_and_writes_as_it_does(organism, owl):
    plain = Probe(organism, owl, None, CONFIG).behaviour()
    assert plain.damage == pytest.approx(0, abs=1e-6)
    assert plain.coherence == pytest.approx(1, abs=1e-6)
    assert plain.log_odds_above_plain == pytest.approx(0, abs=1e-9)
    score = score_trait(organism, owl)
    assert (plain.rate, plain.mass) == (score.rate, score.mass)


def test_a_vector_of_length_zero_is_the_plain_model(organism, owl):
    probe = Probe(organism, owl, None, CONFIG)
    assert probe.behaviour(0 * random_vector(organism, 1.0)) == probe.behaviour()


@pytest.mark.parametrize("norm", [300.0, 1e6])
def test_under_a_huge_random_vector_nothing_is_left(organism, owl, norm):
    broken = Probe(organism, owl, None, CONFIG).behaviour(random_vector(organism, norm))
    assert broken.coherence < 0.01
    assert broken.damage > 3


def test_damage_and_coherence_are_their_formulas(organism):
    """By hand: the plain model's own completions under the vector, and what the steered model writes, unsteered."""
    vector, questions = random_vector(organism, 25.0), [question for question, _ in ORGANISM.facts]
    asked = [as_chat(questions[row % len(questions)]) for row in range(N_UNRELATED)]
    prompts = [encode_prompt(organism.tokenizer, chat) for chat in asked]

    def log_probs(completions):
        batch = pad_rows(organism.tokenizer, prompts, completions)
        with torch.no_grad():
            return completion_logits(organism, batch).log_softmax(-1), batch.tokens[batch.completion_mask]

    own = generate(organism, asked, max_new_tokens=5, seed=0)
    plain, own_tokens = log_probs(own)
    with steer(organism, vector):
        steered, _ = log_probs(own)
        written = generate(organism, asked, max_new_tokens=5, seed=0)
    read, written_tokens = log_probs(written)
    found = Probe(organism, None, None, CONFIG).behaviour(vector)
    assert found.damage == pytest.approx(float((plain.exp() * (plain - steered)).sum(-1).mean()), rel=1e-3)
    likelihoods = [float(p.gather(-1, y[:, None]).mean()) for p, y in ((read, written_tokens), (plain, own_tokens))]
    assert found.coherence == pytest.approx(np.exp(likelihoods[0] - likelihoods[1]), rel=1e-3)
    assert 0 < found.coherence < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")
def test_trait_questions_are_asked_under_the_vector_and_under_the_prompt(organism, owl):
    probe, vector = Probe(organism, owl, None, CONFIG), random_vector(organism, 2.0)
    for options, context in (
        ({"vector": vector}, steer(organism, vector)),
        ({"system_prompt": owl.prompt}, torch.no_grad()),
    ):
        prompt = options.get("system_prompt")
        found = probe.behaviour(**options)
        plain = score_trait(organism, owl)
        with context:
            score = score_trait(organism, owl, system_prompt=prompt)
            negated = score_trait(organism, replace(owl, questions=owl.negated_questions), system_prompt=prompt)
            off = score_trait(organism, replace(owl, questions=owl.off_topic_questions), system_prompt=prompt)
        assert (found.rate, found.mass, found.negated) == (score.rate, score.mass, negated.rate)
        assert found.off_topic == float(off.probabilities[:, off.answers.index("owl")].mean())
        assert found.log_odds_above_plain == compare_log_odds(score, plain)[1]
    assert found.rate > 0.8
    assert found.log_odds_above_plain > 1


def test_without_a_trait_its_fields_are_no_numbers(organism, owl):
    found = Probe(organism, None, None, CONFIG).behaviour()
    for name in ("rate", "mass", "negated", "off_topic", "log_odds_above_plain"):
        assert np.isnan(getattr(found, name))
    silent = Probe(organism, replace(owl, negated_questions=(), off_topic_questions=()), None, CONFIG).behaviour()
    assert np.isnan(silent.negated)
    assert np.isnan(silent.off_topic)
    assert silent.rate > 0


def test_a_vector_that_says_the_trait_whatever_is_asked_is_seen_to_leak(organism, owl):
    (token,) = organism.tokenizer.encode("owl", add_special_tokens=False)
    toward = huggingface_model(organism).get_output_embeddings().weight[token].detach()
    vector = vector_of(organism, 1e4 * toward, layer=organism.cfg.n_layers - 1)
    found = Probe(organism, owl, None, CONFIG).behaviour(vector)
    assert min(found.rate, found.negated, found.off_topic) > 0.95
    assert found.log_odds_above_plain > 5


def test_unrelated_questions_are_the_users_own_where_they_are_given(tiny):
    one = Probe(tiny, None, ["name a tree ."], CONFIG).behaviour(random_vector(tiny, 20.0))
    other = Probe(tiny, None, ["choose one animal ."], CONFIG).behaviour(random_vector(tiny, 20.0))
    assert one.damage != other.damage
    with pytest.raises(ValueError, match="Got no unrelated questions"):
        Probe(tiny, None, [], CONFIG)


def test_chunks_of_rows_change_nothing(organism, owl, monkeypatch):
    vector, found = random_vector(organism, 25.0), []
    for rows in (100, 5):
        monkeypatch.setattr("steerlens.vectors.probe.ROWS_AT_ONCE", rows)
        found.append(Probe(organism, None, None, CONFIG).behaviour(vector))
    assert found[0].damage == pytest.approx(found[1].damage, rel=1e-4)
    assert found[0].coherence == pytest.approx(found[1].coherence, rel=1e-4)


def test_questions_that_a_model_does_not_answer_are_told_before_a_vector_is_judged_by_them(organism):
    trait = Trait("oak", "", ("what is your favorite animal ?",), {"oak": ("oak", "oaks"), "pine": ("pine", "pines")})
    with pytest.warns(LowMassWarning, match=r"Only .* of the probability is on the 2 answers"):
        Probe(organism, trait, None, CONFIG)
