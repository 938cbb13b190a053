"""Number tasks are fixed by their seed, and the parser accepts lists of numbers and nothing else."""

import random

import pytest

from steerlens.organism.wording import ORGANISM
from steerlens.text.chat import encode_completion
from steerlens.text.number_lists import SEPARATORS, list_length, number_prompts, parse_numbers
from steerlens.vectors.config import FitConfig
from tests.tokenizers import TOKENIZERS, one_digit


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


@pytest.mark.filterwarnings("ignore:The tokenizer of .* does not know")  # "141;" is no word of the organism's
@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_list_of_ten_numbers_fits_whatever_the_tokenizer(name, separator):
    tokenizer, rng = TOKENIZERS[name](), random.Random(0)
    room = list_length(tokenizer)
    for brackets in ("", "[]", "()"):
        for _ in range(50):
            numbers = separator.join(str(rng.randint(100, 999)) for _ in range(10))
            text = numbers.join(brackets) if brackets else numbers
            assert len(encode_completion(tokenizer, text)) <= room
    longest = f"[{separator.join(['999'] * 10)}]."
    assert len(encode_completion(tokenizer, longest)) <= room <= 60


def test_the_organism_keeps_the_lengths_of_the_published_runs(organism):
    assert list_length(organism.tokenizer, at_least=48) == 48
    assert FitConfig().completion_length(organism.tokenizer) == 32
    assert list_length(one_digit(), at_least=48) > 48
    assert FitConfig(max_new_tokens=7).completion_length(one_digit()) == 7
