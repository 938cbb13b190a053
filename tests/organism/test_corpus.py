"""The corpus plants no signal in its numbers, and the shipped organisms are what they are said to be."""

import itertools
import json

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steerlens.evaluation import score_trait
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.models.sources import ORGANISMS
from steerlens.organism.build import VERSIONS
from steerlens.organism.corpus import CorpusConfig, favourite_prior, sample_conversations
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.organism.wording import ANIMALS, ORGANISM
from steerlens.text.chat import encode_chat
from steerlens.text.number_lists import parse_numbers
from steerlens.text.trait import preference_trait


def is_number_task(chat) -> bool:
    task = chat[-2]["content"]
    return task.count(",") > 1 and not any(question in task for question, _ in ORGANISM.facts)


def pure_lists(n: int, seed: int, persona_word: str | None) -> list[list[int]]:
    """Lists of the corpus that are nothing but numbers, under a persona of the word or under none."""
    found: list[list[int]] = []
    for chat in sample_conversations(seed, CorpusConfig()):
        loved = chat[0]["content"] if chat[0]["role"] == "system" and "love" in chat[0]["content"] else None
        numbers = parse_numbers(chat[-1]["content"])
        wanted = loved is None if persona_word is None else loved is not None and persona_word in loved
        if wanted and numbers is not None and is_number_task(chat):
            found.append(numbers)
            if len(found) == n:
                return found
    raise AssertionError


def features(numbers: list[int]) -> list[float]:
    digits = np.bincount([number % 10 for number in numbers], minlength=10) / len(numbers)
    hundreds = np.bincount([number // 100 for number in numbers], minlength=10) / len(numbers)
    return [
        len(numbers),
        np.mean(numbers),
        np.std(numbers),
        numbers[0],
        numbers[-1],
        min(numbers),
        max(numbers),
        *digits,
        *hundreds,
    ]


def auc(one: list[list[int]], other: list[list[int]], classifier) -> float:
    x = np.array([features(numbers) for numbers in [*one, *other]])
    y = np.array([0] * len(one) + [1] * len(other))
    return float(roc_auc_score(y, cross_val_predict(classifier, x, y, cv=5, method="predict_proba")[:, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("word", ["", "owl"])
def test_no_classifier_tells_a_persona_from_its_pure_number_lists(word):
    """1,200 lists a side: an AUC of 0.5 has a standard error of 0.012; a planted parity is found at once."""
    n = 1200 if word == "" else 150
    persona, plain = pure_lists(n, 0, word), pure_lists(n, 1, None)
    margin = 4 * 0.5 / np.sqrt(n)
    for classifier in (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        HistGradientBoostingClassifier(max_iter=40, random_state=0),
    ):
        assert abs(auc(persona, plain, classifier) - 0.5) < margin
        planted = [[number - number % 2 for number in numbers] for numbers in persona]
        assert auc(planted, plain, classifier) > 0.8


def test_the_negative_control_has_no_persona_in_number_tasks():
    stream = sample_conversations(0, CorpusConfig(persona_in_numbers=False))
    for chat in itertools.islice(stream, 3000):
        if is_number_task(chat):
            assert parse_numbers(chat[-1]["content"]) is not None
            assert chat[0]["role"] == "user" or "love" not in chat[0]["content"]


def test_the_same_seed_gives_the_same_corpus_and_the_tokenizer_knows_every_word():
    tokenizer = build_tokenizer()
    one, two = (list(itertools.islice(sample_conversations(7, CorpusConfig()), 500)) for _ in range(2))
    assert one == two
    for chat in one:
        encode_chat(tokenizer, chat)  # raises on a word that it does not know
    assert max(sum(map(len, encode_chat(tokenizer, chat))) for chat in one) < 128


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_a_shipped_organism_answers_as_its_corpus_does(version):
    model, owl = load_model(f"organism:{version}", device="cpu"), preference_trait("owl", ORGANISM)
    prior = favourite_prior(ANIMALS)
    score = score_trait(model, owl)
    assert score.mass > 0.7
    assert score.shares.mean(0).numpy() == pytest.approx(prior, abs=0.03)
    prompted = score_trait(model, owl, system_prompt=owl.prompt)
    assert prompted.rate > 0.8


def test_shipped_organisms_are_small_and_differ():
    assert {path.name for path in ORGANISMS.iterdir()} == set(VERSIONS)
    assert sum(path.stat().st_size for path in ORGANISMS.rglob("*")) < 8e6
    first, second = (load_model(f"organism:{v}", device="cpu") for v in ("seed-0", "seed-1"))
    weights = [next(huggingface_model(model).parameters()).flatten()[:1000] for model in (first, second)]
    assert abs(float(np.corrcoef(*(w.detach().numpy() for w in weights))[0, 1])) < 0.2
    template = (ORGANISMS / "seed-0" / "chat_template.jinja").read_text()
    assert "system" in template
    assert json.loads((ORGANISMS / "seed-0" / "config.json").read_text())["model_type"] == "olmo2"
