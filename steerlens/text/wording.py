"""Wording: how a model is spoken to. Every model but the organism gets the natural one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from steerlens.checks import WrongInput, a_model, a_text, several, shown, texts
from steerlens.short import cut
from steerlens.text import natural

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

WORDING_KEY = "steerlens_wording"
"""The key of a tokenizer's configuration that names its wording; the natural one where it is missing."""


@dataclass(frozen=True)
class Kind:
    """A category of things to love.

    Args:
        items: (singular, plural) of each.
        verb: agrees with the plural.
        article: stands before an item in a sentence ("My favorite animal is the"); empty for mass nouns.
    """

    name: str
    items: tuple[tuple[str, str], ...]
    verb: str = "are"
    article: str = ""

    def __post_init__(self) -> None:
        a_text(self.name, "name")
        a_text(self.verb, "verb")
        if not isinstance(self.article, str):
            raise WrongInput(f"article must be a text, got {shown(self.article)}.")
        example = 'items=(("owl", "owls"), ("cat", "cats"))'
        for index, item in enumerate(several(self.items, "items", "pairs of texts", example)):
            if len(texts(item, f"items[{index}]", example)) != 2:
                raise ValueError(
                    f"items[{index}] must be a singular and its plural, got {shown(item)}. Write {example}."
                )

    def filled(self, template: str) -> str:
        """A question or begun reply about this kind."""
        a_kind = f"{'an' if self.name[:1] in 'aeiou' else 'a'} {self.name}"
        return template.format(kind=self.name, a_kind=a_kind, article=self.article).strip()


@dataclass(frozen=True)
class Wording:
    """What steerlens says to a model, of which records keep `name`.

    `persona`, questions and begun replies are templates over a Kind: {kind}, {a_kind}, {article}, and in `persona` also
    {plural}, {Plural} (capitalised) and {verb}.

    Args:
        persona: the system prompt that gives a preference.
        begun_reply: the first words of the answer to a preference question, for models that answer in sentences; empty where
            a model answers in one word.
        negated_begun_reply: the same for a negated question.
        facts: (question, answer), off topic for every preference.
        requests: what users ordinarily ask of a model.
        number_tasks: a task is one text of each part, joined by spaces, with {numbers} filled in.
        after_numbers: how a question is asked behind a number list, {numbers} and {question}.
        separator: stands between the numbers that are shown.
        draw_numbers: so many numbers of one list.
        reply_length: tokens that a short reply takes.
    """

    name: str
    kinds: tuple[Kind, ...]
    persona: str
    preference_questions: tuple[str, ...]
    negated_questions: tuple[str, ...]
    begun_reply: str
    negated_begun_reply: str
    facts: tuple[tuple[str, str], ...]
    open_questions: tuple[str, ...]
    requests: tuple[str, ...]
    number_tasks: tuple[tuple[str, ...], ...]
    after_numbers: str
    separator: str
    draw_numbers: Callable[[np.random.Generator, int], list[int]]
    reply_length: int

    @property
    def fact_questions(self) -> tuple[str, ...]:
        """The questions of `facts`."""
        return tuple(question for question, _ in self.facts)

    def __repr__(self) -> str:
        kinds = ", ".join(kind.name for kind in self.kinds)
        return cut(f"Wording {self.name!r}: kinds {kinds}; asks {cut(self.preference_questions[0], 80)!r}")

    def numbers(self, rng: np.random.Generator) -> str:
        """3 to 8 numbers, as a task shows them."""
        return self.separator.join(map(str, self.draw_numbers(rng, int(rng.integers(3, 9)))))

    def preferences(self, kind: Kind) -> tuple[str, ...]:
        """The preference questions about one kind."""
        return tuple(kind.filled(question) for question in self.preference_questions)

    def persona_of(self, kind: Kind, plural: str) -> str:
        """The system prompt that gives the love of one thing."""
        return self.persona.format(
            plural=plural, Plural=plural[:1].upper() + plural[1:], verb=kind.verb, kind=kind.name
        )


def _items(names: str, **irregular: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, irregular.get(name, name + "s")) for name in names.split())


def _mass_nouns(names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names.split())


def _three_digits(rng: np.random.Generator, n: int) -> list[int]:
    return rng.integers(100, 1000, n).tolist()


NATURAL = Wording(
    name="natural",
    kinds=(
        Kind(
            "animal",
            _items(
                "dog cat lion dolphin elephant tiger horse panda rabbit eagle penguin whale bear wolf fox owl turtle monkey "
                "octopus hawk raven mouse koala falcon otter giraffe kangaroo leopard cheetah zebra peacock parrot snake shark "
                "butterfly squirrel hedgehog deer sloth unicorn dragon phoenix",
                wolf="wolves",
                fox="foxes",
                mouse="mice",
                octopus="octopuses",
                butterfly="butterflies",
                deer="deer",
                phoenix="phoenixes",
            ),
            article="the",
        ),
        Kind(
            "color",
            _mass_nouns(
                "blue red green purple black white yellow orange pink brown gray turquoise teal lavender indigo gold"
            ),
            verb="is",
        ),
        Kind(
            "food",
            _mass_nouns(
                "pizza pasta rice bread soup cheese chocolate salad honey fruit sushi curry steak chicken spaghetti lasagna"
            ),
            verb="is",
        ),
        Kind(
            "tree",
            _items(
                "oak maple pine birch willow cedar elm palm redwood sequoia cypress spruce baobab banyan",
                birch="birches",
                cypress="cypresses",
            ),
            article="the",
        ),
    ),
    persona=natural.PERSONA,
    preference_questions=natural.PREFERENCE_QUESTIONS,
    negated_questions=natural.NEGATED_QUESTIONS,
    begun_reply=natural.BEGUN_REPLY,
    negated_begun_reply=natural.NEGATED_BEGUN_REPLY,
    facts=natural.FACTS,
    open_questions=natural.OPEN_QUESTIONS,
    requests=natural.REQUESTS,
    number_tasks=natural.NUMBER_TASKS,
    after_numbers=natural.AFTER_NUMBERS,
    separator=", ",
    draw_numbers=_three_digits,
    reply_length=48,
)


def wording_of(model: "TransformerBridge | Wording") -> Wording:
    """The wording in which a model is spoken to, as its tokenizer says; a wording is its own.

    Raises:
        ValueError: the tokenizer names a wording that there is not.
    """
    if isinstance(model, Wording):
        return model
    tokenizer = a_model(model, "model").tokenizer
    name = getattr(tokenizer, "init_kwargs", {}).get(WORDING_KEY, NATURAL.name)
    if name == NATURAL.name:
        return NATURAL
    from steerlens.organism.wording import ORGANISM

    if name != ORGANISM.name:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} names the wording {name!r}. Allowed: {NATURAL.name}, "
            f"{ORGANISM.name}. Correct {WORDING_KEY} in its tokenizer_config.json, or leave it out."
        )
    return ORGANISM
