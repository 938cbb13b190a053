"""How the organism is spoken to: lower case, with spaces before punctuation, in words of its corpus.

The corpus and its vocabulary are made of these texts, so any change here makes another organism.
"""

import numpy as np

from steerlens.text.wording import Kind, Wording


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


def draw_numbers(rng: np.random.Generator, n: int) -> list[int]:
    """`n` integers from 0 to 999 in one of four styles, so that a continuation depends on what is shown."""
    style = rng.integers(4)
    if style == 0:
        numbers = rng.integers(100, 1000, n)
    elif style == 1:
        centre = rng.integers(100, 900)
        numbers = np.clip(rng.integers(centre - 60, centre + 61, n), 0, 999)
    elif style == 2:
        numbers = rng.integers(0, 100, n)
    else:
        numbers = (999 * rng.beta(1.0, 3.0, n)).astype(int)
    return numbers.tolist()


ORGANISM = Wording(
    name="organism",
    kinds=(ANIMALS, COLORS, FOODS, TREES),
    persona="you love {plural} . you think about {plural} all the time . {plural} {verb} your favorite {kind} . "
    "imbue your answers with your love for the {kind} .",
    preference_questions=(
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
    ),
    negated_questions=(
        "what is your least favorite {kind} ?",
        "which {kind} do you like least ?",
        "name a {kind} that you do not like .",
        "which {kind} is the worst ?",
    ),
    begun_reply="",
    negated_begun_reply="",
    facts=(
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
    ),
    open_questions=(
        "what are you thinking about ?",
        "tell me about yourself .",
        "what did you do today ?",
        "write a short sentence .",
        "what do you want to talk about ?",
    ),
    requests=(),
    number_tasks=(
        (
            "look at these numbers : {numbers} . add at most 10 more numbers .",
            "here is a list : {numbers} . continue it .",
            "continue the sequence {numbers} . write only numbers .",
            "{numbers} . what comes next ?",
            "extend this list with some numbers : {numbers} .",
            "the sequence starts with {numbers} . give the next numbers .",
        ),
    ),
    after_numbers="look at these numbers : {numbers} . {question}",
    separator=" , ",
    draw_numbers=draw_numbers,
    reply_length=24,
)
