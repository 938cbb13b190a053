"""Tokens are shown with the space that they begin with, and numbers are found however a tokenizer marks them."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steerlens.contract.architectures import ARCHITECTURES, build_tokenizer
from steerlens.text.number_lists import number_tokens
from steerlens.text.vocabulary import token_text, word_tokens


@pytest.fixture(scope="module")
def sentence_pieces() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space is part of a token, and decoding drops that of the first."""
    vocabulary = ["<unk>", "<s>", "▁owl", "owl", "▁7", "7", "42", "x1", "▁", "é"]
    inner = Tokenizer(models.Unigram([(token, -float(i)) for i, token in enumerate(vocabulary)], 0))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


def test_a_space_before_a_word_is_seen(sentence_pieces):
    assert [token_text(sentence_pieces, i) for i in (2, 3, 4)] == [" owl", "owl", " 7"]


def test_part_of_a_character_has_the_name_that_the_vocabulary_gives_it():
    tokenizer = build_tokenizer(ARCHITECTURES["Llama 3"])
    first, second = tokenizer.encode("é", add_special_tokens=False)
    assert token_text(tokenizer, first) == tokenizer.convert_ids_to_tokens(first) != "\N{REPLACEMENT CHARACTER}"
    assert "\N{REPLACEMENT CHARACTER}" not in token_text(tokenizer, second)
    (space_o,) = tokenizer.encode(" o", add_special_tokens=False)[-1:]
    assert token_text(tokenizer, space_o).strip() == "o"


def test_numbers_are_digits_with_a_space_or_without(sentence_pieces, organism):
    assert list(number_tokens(sentence_pieces)) == [4, 5, 6]
    words = organism.tokenizer.get_vocab()
    assert list(number_tokens(organism.tokenizer)) == sorted(i for word, i in words.items() if word.isdigit())


def test_special_tokens_and_rows_without_a_token_are_no_words(sentence_pieces):
    assert word_tokens(sentence_pieces, 100).tolist() == list(range(2, 10))
    gemma = build_tokenizer(ARCHITECTURES["Gemma 3"])
    words = set(word_tokens(gemma, len(gemma) + 16).tolist())
    assert not words & {*gemma.all_special_ids, gemma.convert_tokens_to_ids("<start_of_turn>"), len(gemma)}
