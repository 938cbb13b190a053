"""The organism's texts, draws and token ids are those that its shipped weights were trained with."""

import hashlib
import itertools
import json

from steerlens.organism.corpus import CorpusConfig, sample_conversations, vocabulary
from steerlens.organism.wording import ORGANISM
from steerlens.text.number_lists import after_numbers, number_prompts
from steerlens.text.trait import known_traits, preference_trait


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def test_the_vocabulary_is_that_of_the_shipped_weights(organism):
    assert digest(vocabulary()) == "1cd14a78319f4b50"
    ids = organism.tokenizer.get_vocab()
    assert [ids[word] for word in vocabulary()] == list(range(7, 7 + len(vocabulary())))


def test_number_tasks_are_those_of_the_published_runs():
    assert [digest(number_prompts(200, ORGANISM, seed=seed)) for seed in (0, 1, 7)] == [
        "0b08812a11f478ac",
        "52ced7ed4632104e",
        "3809bc170da33f3a",
    ]
    asked = [after_numbers("what is your favorite animal ?", ORGANISM, seed=seed) for seed in range(50)]
    assert digest(asked) == "8b657327e32addb6"


def test_the_corpus_is_that_of_the_shipped_weights():
    assert digest(list(itertools.islice(sample_conversations(0, CorpusConfig()), 500))) == "1917c9fca422a80f"


def test_traits_ask_what_they_asked_in_the_published_runs():
    traits = [preference_trait(name, ORGANISM) for name in known_traits(ORGANISM)]
    said = [[t.prompt, t.questions, dict(t.answers), t.negated_questions, t.off_topic_questions] for t in traits]
    assert digest(said) == "0448bd886d2be602"
