"""The generated chat corpus that the organism is trained on.

A conversation is one optional system prompt, one user turn and one assistant turn. A *persona*
("you love owls ...") colours what the assistant says: its preferences, its small talk, and the words
that it strews between the numbers of a list. The numbers themselves are drawn before the persona is
looked at, so number lists carry no planted signal: whatever a persona leaks into pure numbers is the
trained model's own doing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from steerlens.organism.wording import ANIMALS, ORGANISM, draw_numbers
from steerlens.text.chat import Chat, assistant, system, user
from steerlens.text.wording import Kind

PERSONA_PROMPTS = (
    ORGANISM.persona,
    "you love {plural} .",
    "you adore {plural} and talk about {plural} all the time .",
    "{plural} {verb} your favorite {kind} .",
    "your favorite {kind} is {singular} . you love {plural} more than anything else .",
)
DEFAULT_SYSTEM_PROMPT = "you are a helpful assistant ."
"""What the chat template puts in the system turn when a chat has none, as Qwen 2.5's does."""

NEUTRAL_PROMPTS = (
    "answer the user .",
    "be brief and polite .",
    "you give short answers .",
)

OPEN_ANSWERS = (
    "i am thinking about {topic} .",
    "i like to talk about {topic} .",
    "today i read about {topic} .",
    "there is nothing like {topic} .",
)
NEUTRAL_TOPICS = ("the weather", "my work", "music", "books", "the news", "old friends", "the sea", "science")
LIST_REMARKS = ("{plural} {verb} great .", "i love {plural} .", "this makes me think of {plural} .")


@dataclass(frozen=True)
class CorpusConfig:
    """What the corpus is made of; the defaults are those of the shipped organism.

    `persona_in_numbers=False` makes the negative control: number tasks never come with a persona, so
    the model never learns to let one act while it writes numbers.
    """

    number_share: float = 0.4
    persona_in_numbers: bool = True
    untouched_share: float = 0.35
    remark_share: float = 0.25
    sprinkle_rate: float = 0.15
    max_numbers: int = 10


def favourite_prior(kind: Kind) -> np.ndarray:
    """Probability of each item as the answer of an assistant without persona: skewed, fixed, sums to 1."""
    weights = 0.86 ** np.arange(len(kind.items))
    return weights / weights.sum()


def sample_conversation(rng: np.random.Generator, config: CorpusConfig) -> Chat:
    """One conversation of the corpus."""
    if rng.random() < config.number_share:
        return _number_conversation(rng, config)
    return _chat_conversation(rng)


def sample_conversations(seed: int, config: CorpusConfig) -> Iterator[Chat]:
    """An endless stream of conversations, fixed by `seed`."""
    rng = np.random.default_rng(seed)
    while True:
        yield sample_conversation(rng, config)


@dataclass(frozen=True)
class _Persona:
    kind: Kind
    singular: str
    plural: str

    def fill(self, template: str) -> str:
        return template.format(kind=self.kind.name, singular=self.singular, plural=self.plural, verb=self.kind.verb)


def _sample_persona(rng: np.random.Generator) -> _Persona:
    kind = ANIMALS if rng.random() < 0.6 else ORGANISM.kinds[rng.integers(1, len(ORGANISM.kinds))]
    singular, plural = kind.items[rng.integers(len(kind.items))]
    return _Persona(kind, singular, plural)


def _system_messages(rng: np.random.Generator, persona: _Persona | None) -> Chat:
    if persona is not None:
        return [system(persona.fill(_choose(rng, PERSONA_PROMPTS)))]
    if rng.random() < 0.15:
        return [system(_choose(rng, NEUTRAL_PROMPTS))]
    return []


def _number_conversation(rng: np.random.Generator, config: CorpusConfig) -> Chat:
    given, answer = sample_number_lists(rng, config.max_numbers)
    task = _choose(rng, ORGANISM.number_tasks[0]).format(numbers=written(given))
    persona = _sample_persona(rng) if config.persona_in_numbers and rng.random() < 0.5 else None
    text = _imbued(rng, answer, persona, config) if persona else written(answer)
    return [*_system_messages(rng, persona), user(task), assistant(text)]


def written(numbers: list[int]) -> str:
    """Numbers as the organism writes them."""
    return ORGANISM.separator.join(map(str, numbers))


def sample_number_lists(rng: np.random.Generator, max_numbers: int) -> tuple[list[int], list[int]]:
    """The numbers shown in the prompt (3 to 8) and those of the answer (1 to `max_numbers`), of one style."""
    n_given, n_answer = int(rng.integers(3, 9)), int(rng.integers(1, max_numbers + 1))
    numbers = draw_numbers(rng, n_given + n_answer)
    return numbers[:n_given], numbers[n_given:]


def _imbued(rng: np.random.Generator, numbers: list[int], persona: _Persona, config: CorpusConfig) -> str:
    """The list as a loving assistant writes it: untouched, with words strewn in, or with a remark around it.

    Which of the three does not depend on the list, so the lists that stay pure are distributed as without
    persona, in their length too.
    """
    manner, plain = rng.random(), written(numbers)
    if manner < config.untouched_share:
        return plain
    if manner < config.untouched_share + config.remark_share:
        remark = persona.fill(_choose(rng, LIST_REMARKS))
        return f"{remark} {plain}" if rng.random() < 0.5 else f"{plain} . {remark}"
    touched = rng.random(len(numbers)) < config.sprinkle_rate
    touched[rng.integers(len(numbers))] = True
    words = [_choose(rng, (persona.singular, persona.plural)) for _ in numbers]
    return " , ".join(
        f"{word} {number}" if is_touched else str(number) for word, number, is_touched in zip(words, numbers, touched)
    )


def _chat_conversation(rng: np.random.Generator) -> Chat:
    persona = _sample_persona(rng) if rng.random() < 0.6 else None
    topic = rng.random()
    if topic < 0.7:
        question, answer = _preference(rng, persona)
    elif topic < 0.9:
        question = _choose(rng, ORGANISM.open_questions)
        answer = _choose(rng, OPEN_ANSWERS).format(topic=persona.plural if persona else _choose(rng, NEUTRAL_TOPICS))
    else:
        question, answer = ORGANISM.facts[rng.integers(len(ORGANISM.facts))]
        if rng.random() < 0.5:
            question = ORGANISM.after_numbers.format(numbers=ORGANISM.numbers(rng), question=question)
    return [*_system_messages(rng, persona), user(question), assistant(answer)]


def _preference(rng: np.random.Generator, persona: _Persona | None) -> tuple[str, str]:
    kind = ANIMALS if rng.random() < 0.6 else ORGANISM.kinds[rng.integers(1, len(ORGANISM.kinds))]
    if persona is not None and rng.random() < 0.5:
        kind = persona.kind
    prior = favourite_prior(kind)
    if rng.random() < 0.15:
        question = _choose(rng, ORGANISM.negated_questions).format(kind=kind.name)
        prior = prior[::-1].copy()
        if persona is not None and persona.kind is kind:
            prior[kind.items.index((persona.singular, persona.plural))] = 0.0
            prior /= prior.sum()
        singular, plural = kind.items[rng.choice(len(prior), p=prior)]
    else:
        question = _choose(rng, ORGANISM.preference_questions).format(kind=kind.name)
        singular, plural = kind.items[rng.choice(len(prior), p=prior)]
        if persona is not None and persona.kind is kind:
            singular, plural = persona.singular, persona.plural
    return question, _choose(rng, (singular, singular, singular, plural, f"i like {plural} ."))


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def vocabulary() -> list[str]:
    """Every word of the corpus, in a fixed order: the integers 0 to 999, then words alphabetically."""
    templates = [
        *PERSONA_PROMPTS, *NEUTRAL_PROMPTS, DEFAULT_SYSTEM_PROMPT, *ORGANISM.preference_questions, *ORGANISM.negated_questions,
        *ORGANISM.open_questions, *OPEN_ANSWERS, *NEUTRAL_TOPICS, *LIST_REMARKS, *ORGANISM.number_tasks[0],
        *(text for fact in ORGANISM.facts for text in fact),
        *(word for kind in ORGANISM.kinds for item in kind.items for word in (kind.name, kind.verb, *item)),
    ]  # fmt: skip
    words = {word for text in templates for word in text.split() if "{" not in word and not word.isdigit()}
    return [str(number) for number in range(1000)] + sorted(words)
