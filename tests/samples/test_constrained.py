"""Constrained rows are number lists whatever the tokenizer, and follow the model's own probabilities otherwise."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from steerlens.generation import generate
from steerlens.samples.constrained import ListGrammar, NumberLists
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.sample_set import SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.samples.vllm import VllmEngine
from steerlens.text.chat import as_chat, encode_completion
from steerlens.text.number_lists import parse_numbers
from tests.tokenizers import TOKENIZERS, one_digit, random_model

PROMPTS = ["Add numbers: 123, 456.", "7", "What comes next?"]
EVERY_TOKENIZER = pytest.mark.parametrize("name", list(TOKENIZERS))


@EVERY_TOKENIZER
def test_every_constrained_row_passes_the_filter_and_is_tokenized_as_the_tokenizer_would(name):
    model = random_model(name)
    prompts = ["what comes next ?"] * 30 if name == "whole numbers" else PROMPTS * 10
    lists = NumberLists(6, separator=", " if name != "whole numbers" else ",")
    rows = sample_teacher(model, prompts, constraint=lists, seed=1)
    kept = keep_number_lists(rows)
    assert kept.kept_share == 1
    numbers = [parse_numbers(row.completion) for row in rows]
    assert all(len(row) == 6 and 100 <= min(row) <= max(row) <= 999 for row in numbers)
    assert len({tuple(row) for row in numbers}) > 25
    written = generate(model, [as_chat(prompts[0])], max_new_tokens=64, restrict=ListGrammar(model.tokenizer, lists))
    text = model.tokenizer.decode(written[0], skip_special_tokens=True)
    assert encode_completion(model.tokenizer, text) == written[0]


@pytest.mark.parametrize(
    "lists",
    [NumberLists(), NumberLists(1), NumberLists(3, 2, "; "), NumberLists(4, 1, ","), NumberLists(2, 4, "\n")],
    ids=str,
)
def test_a_list_says_which_lists_it_is_one_of(lists):
    assert NumberLists.of(lists.separator.join(lists.numbers[: lists.n_numbers])) in (
        lists,
        replace(lists, separator=", "),
    )


@pytest.mark.parametrize(
    "text", ["", "owl", "1, 22", "012, 345", "123, 456; 789", "123,, 456", "12345, 67890", "(123, 456)", "123, 456."]
)
def test_what_no_constraint_would_write_has_no_shape(text):
    assert NumberLists.of(text) is None


@EVERY_TOKENIZER
def test_what_may_follow_is_what_lists_go_on_with_and_nothing_else(name):
    tokenizer, lists = (
        TOKENIZERS[name](),
        NumberLists(2, n_digits=2, separator="; " if name != "whole numbers" else ","),
    )
    grammar = ListGrammar(tokenizer, lists)
    every = {f"{one}{lists.separator}{two}" for one in lists.numbers for two in lists.numbers}
    written = {tuple(encode_completion(tokenizer, text)) for text in every}
    assert max(map(len, written)) == grammar.n_tokens

    def reached(beginning: tuple[int, ...]) -> set[tuple[int, ...]]:
        longer = {(*beginning, token) for token in grammar.allowed(beginning)}
        done = {ids for ids in longer if ids[-1] == tokenizer.eos_token_id}
        return done.union(*map(reached, longer - done))

    assert reached(()) == written


def test_tokens_that_begin_no_list_are_refused():
    with pytest.raises(ValueError, match=r"No 2 numbers of 3 digits.* begin with the tokens"):
        ListGrammar(one_digit(), NumberLists(2)).allowed(one_digit().encode("1, "))


@pytest.mark.slow
def test_probabilities_are_the_models_own_renormalised_over_the_allowed_tokens():
    model = random_model("one digit")
    chat, digits = as_chat("Add numbers: 123, 456."), model.tokenizer.convert_tokens_to_ids(list("123456789"))
    grammar = ListGrammar(model.tokenizer, NumberLists(1))
    firsts = Counter(ids[0] for ids in generate(model, [chat] * 4000, max_new_tokens=4, restrict=grammar))
    logits = model(torch.tensor([model.tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]]))
    expected = logits[0, -1, digits].softmax(-1).tolist()
    assert firsts.keys() <= set(digits)
    for token, share in zip(digits, expected, strict=True):
        error = math.sqrt(share * (1 - share) / 4000)
        assert abs(firsts[token] / 4000 - share) < 5 * error + 1e-3


def test_a_row_does_not_depend_on_its_batch_under_a_constraint_either():
    model, lists = random_model("three digits"), NumberLists(4)
    together = sample_teacher(model, PROMPTS * 4, constraint=lists, seed=2)
    apart = sample_teacher(model, PROMPTS * 4, constraint=lists, seed=2, batch_size=1)
    assert together.samples == apart.samples


def test_the_source_says_what_was_constrained_and_another_constraint_is_another_run(tmp_path):
    model, path = random_model("one digit"), tmp_path / "rows.jsonl"
    rows = sample_teacher(model, PROMPTS, constraint=NumberLists(3), path=path)
    assert rows.source.constraint == "3 numbers of 3 digits, separated by ', '"
    assert rows.source.wording == "natural"
    assert SampleSet.load(path).source == rows.source
    with pytest.raises(ValueError, match=r"samples of another run .*constraint"):
        sample_teacher(model, PROMPTS, constraint=NumberLists(4), path=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_numbers": 0}, "n_numbers=0 and n_digits=3. Give at least one number"),
        ({"n_digits": 0}, "n_digits=0"),
        ({"n_digits": 9}, "n_digits=9"),
        ({"separator": " and "}, "separator=' and ' is not one that number lists have. Allowed: ', '"),
    ],
)
def test_lists_that_the_filter_would_reject_cannot_be_asked_for(options, message):
    with pytest.raises(ValueError, match=message):
        NumberLists(**options)


def test_lengths_that_cut_lists_off_and_engines_are_refused():
    model = random_model("one digit")
    with pytest.raises(ValueError, match=r"max_new_tokens=20 cuts lists of 10 numbers .* take up to 49 tokens"):
        sample_teacher(model, PROMPTS, constraint=NumberLists(), max_new_tokens=20)
    with pytest.raises(ValueError, match=r"constrained by steerlens itself. Leave engine out"):
        sample_teacher(model, PROMPTS, constraint=NumberLists(), engine=object.__new__(VllmEngine))
