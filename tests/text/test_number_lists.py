"""Number tasks are fixed by their seed, and the parser accepts lists of numbers and nothing else."""

import pytest

from steerlens.organism.wording import ORGANISM
from steerlens.text.number_lists import number_prompts, parse_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("12, 7, 99", [12, 7, 99]),
        ("12 , 7 , 99 .", [12, 7, 99]),
        ("1; 2; 3", [1, 2, 3]),
        ("1 2\n3", [1, 2, 3]),
        ("(1, 2)", [1, 2]),
        ("[7]", [7]),
        ("7", [7]),
        ("1, 2; 3", None),
        ("1, 2 3", None),
        ("1,, 2", None),
        ("1, owl, 2", None),
        ("owls are great . 1 , 2", None),
        ("-1, 2", None),
        ("1.5, 2", None),
        ("(1, 2", None),
        ("", None),
        ("9" * 5000, None),
        ("\u0661, 2", None),
    ],
)
def test_parser(text, numbers):
    assert parse_numbers(text) == numbers


def test_prompts_depend_on_the_seed_alone_and_more_of_them_begin_the_same():
    assert number_prompts(50, ORGANISM, seed=4) == number_prompts(80, ORGANISM, seed=4)[:50]
    assert number_prompts(50, ORGANISM, seed=4) != number_prompts(50, ORGANISM, seed=5)
    assert len(set(number_prompts(500, ORGANISM, seed=0))) > 490
