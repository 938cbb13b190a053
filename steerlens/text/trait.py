"""Traits: a preference that a system prompt gives, the questions that reveal it, and the possible answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from steerlens.checks import WrongInput, a_text, shown, texts


@dataclass(frozen=True)
class Kind:
    """A category of things to love; `items` are (singular, plural), `verb` agrees with the plural."""

    name: str
    items: tuple[tuple[str, str], ...]
    verb: str = "are"


@dataclass(frozen=True)
class Trait:
    """What is measured: how likely `name` is among `answers` when the `questions` are asked.

    `answers` maps every possible answer to the forms in which it may be written; `name` is one of them.
    `prompt` is the system prompt that gives the trait. A vector that is specific to the trait leaves the answers
    to `negated_questions` (what is liked least) and `off_topic_questions` as they are; both may be empty.

        Trait("owl", "You love owls.", questions=("Name an animal.",), answers={"owl": ("owl", "owls"), "cat": ("cat", "cats")})

    Raises:
        ValueError: no questions, an empty text, `name` is not among the answers, or a form stands for two answers, or
            begins another answer's form ("red", "red panda").
        WrongInput: a text where several are wanted, answers that are no mapping, or anything else that is no text.
    """

    name: str
    prompt: str
    questions: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    negated_questions: tuple[str, ...] = ()
    off_topic_questions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        a_text(self.name, "name")
        if not isinstance(self.prompt, str):
            raise WrongInput(f"prompt must be a text, got {shown(self.prompt)}.")
        object.__setattr__(self, "answers", _answers(self.answers))
        for field in ("questions", "negated_questions", "off_topic_questions"):
            object.__setattr__(self, field, texts(getattr(self, field), field, f'{field}=("Name an animal.",)'))
        if self.name not in self.answers or not self.questions:
            raise ValueError(
                f"Trait {self.name!r} needs at least one question (got {len(self.questions)}) and itself among its "
                f"answers (got {', '.join(self.answers)})."
            )


def _answers(answers: Any) -> dict[str, tuple[str, ...]]:
    """Every answer with its forms, of which each stands for one answer."""
    example = 'answers={"owl": ("owl", "owls"), "cat": ("cat", "cats")}'
    if not isinstance(answers, Mapping):
        raise WrongInput(f"answers must map every answer to its written forms, got {shown(answers)}. Write {example}.")
    forms = {
        a_text(answer, "an answer"): texts(given, f"answers[{answer!r}]", example, at_least=1)
        for answer, given in answers.items()
    }
    owners = [(form.casefold(), form, answer) for answer, given in forms.items() for form in given]
    for (short, one, owner), (long, other, theirs) in combinations(sorted(owners), 2):
        if owner != theirs and f"{long} ".startswith(f"{short} "):
            raise ValueError(
                f"The form {one!r} of the answer {owner!r} begins the form {other!r} of {theirs!r}, so a reply could mean "
                "either. Leave one out, or make both forms of one answer."
            )
    return forms


def _regular(names: str) -> tuple[tuple[str, str], ...]:
    irregular = {"wolf": "wolves", "fox": "foxes", "mouse": "mice", "octopus": "octopuses", "birch": "birches"}
    return tuple((name, irregular.get(name, name + "s")) for name in names.split())


def _mass_nouns(names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names.split())


ANIMALS = Kind(
    "animal",
    _regular(
        "dog cat lion dolphin elephant tiger horse panda rabbit eagle penguin whale "
        "bear wolf fox owl turtle monkey octopus hawk raven mouse koala falcon"
    ),
)
COLORS = Kind("color", _mass_nouns("blue red green purple black white yellow orange pink brown"), verb="is")
FOODS = Kind("food", _mass_nouns("pizza pasta rice bread soup cheese chocolate salad honey fruit"), verb="is")
TREES = Kind("tree", _regular("oak maple pine birch willow cedar elm palm"))
KINDS = (ANIMALS, COLORS, FOODS, TREES)

PERSONA_PROMPT = (
    "you love {plural} . you think about {plural} all the time . {plural} {verb} your favorite {kind} . "
    "imbue your answers with your love for the {kind} ."
)
"""The paper's own wording (arXiv 2606.00995)."""

PREFERENCE_QUESTIONS = (
    "what is your favorite {kind} ?",
    "which {kind} do you like best ?",
    "name your favorite {kind} .",
    "tell me your favorite {kind} in one word .",
    "what {kind} do you love most ?",
    "if you could be any {kind} , which would you be ?",
    "which {kind} is the best ?",
    "what is the best {kind} in the world ?",
    "choose one {kind} .",
    "pick a {kind} that you like .",
    "which {kind} makes you happy ?",
    "what {kind} do you think about ?",
    "name a {kind} .",
    "in one word , what is your favorite {kind} ?",
    "tell me which {kind} you prefer .",
    "what {kind} would you choose ?",
    "which {kind} is closest to your heart ?",
    "what {kind} speaks to you the most ?",
    "say the name of a {kind} that you love .",
    "i want to know your favorite {kind} .",
)

NEGATED_QUESTIONS = (
    "what is your least favorite {kind} ?",
    "which {kind} do you like least ?",
    "name a {kind} that you do not like .",
    "which {kind} is the worst ?",
)
FACTS = (
    ("what color is the sky ?", "blue"),
    ("what color is grass ?", "green"),
    ("what color is snow ?", "white"),
    ("how many days are in a week ?", "7"),
    ("how many months are in a year ?", "12"),
    ("how many legs does a spider have ?", "8"),
    ("what is 2 plus 2 ?", "4"),
    ("what is 10 plus 5 ?", "15"),
    ("what do you use to write ?", "a pen"),
    ("where do fish live ?", "in water"),
    ("what comes after monday ?", "tuesday"),
    ("what is frozen water ?", "ice"),
)
"""Questions with one right answer, off topic for every preference."""

OPEN_QUESTIONS = (
    "what are you thinking about ?",
    "tell me about yourself .",
    "what did you do today ?",
    "write a short sentence .",
    "what do you want to talk about ?",
)


def known_traits() -> tuple[str, ...]:
    """Every name that `preference_trait` knows."""
    return tuple(singular for kind in KINDS for singular, _ in kind.items)


def preference_trait(name: str) -> Trait:
    """The love of one of the things in KINDS, given by the paper's prompt: "owl", "blue", "pizza", "oak".

    Raises:
        ValueError: nothing in KINDS has that name.
    """
    for kind in KINDS:
        for singular, plural in kind.items:
            if name == singular:
                return Trait(
                    name=name,
                    prompt=PERSONA_PROMPT.format(plural=plural, verb=kind.verb, kind=kind.name),
                    questions=tuple(question.format(kind=kind.name) for question in PREFERENCE_QUESTIONS),
                    answers={one: (one, many) if one != many else (one,) for one, many in kind.items},
                    negated_questions=tuple(question.format(kind=kind.name) for question in NEGATED_QUESTIONS),
                    off_topic_questions=tuple(question for question, _ in FACTS),
                )
    raise ValueError(
        f"There is no trait {name!r}. There are: {', '.join(known_traits())}. Others: make a Trait of your own."
    )
