"""The tokens of an answer are those that a reply would have."""

import pytest

from steerlens.answers.forms import answer_tokens
from steerlens.contract.architectures import ARCHITECTURES, build_tokenizer


@pytest.fixture(scope="module")
def bytes_tokenizer():
    return build_tokenizer(ARCHITECTURES["Llama 3"])


def test_an_answer_has_its_forms_with_and_without_capital_and_space(bytes_tokenizer):
    (paths,) = answer_tokens(bytes_tokenizer, {"owl": ("owl", "owls")})
    written = {bytes_tokenizer.decode(path) for path in paths}
    assert written == {"owl", " owl", "Owl", " Owl", "owls", " owls", "Owls", " Owls"}


def test_a_capital_is_put_before_the_rest_of_a_name_as_it_is(bytes_tokenizer):
    (paths,) = answer_tokens(bytes_tokenizer, {"city": ("new York",)})
    assert {bytes_tokenizer.decode(path) for path in paths} == {"new York", " new York", "New York", " New York"}


def test_a_tokenizer_that_puts_a_space_before_every_text_still_has_a_form_without():
    """As Llama 2's does: alone, "owl" is written with a space mark, and a reply behind a tag is not."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "▁": 1, "\n": 2, "owl": 3, "▁owl": 4, "O": 5, "wl": 6, "▁O": 7, "▁Owl": 8, "▁\n": 9}
    inner = Tokenizer(models.Unigram([(token, -float(len(vocabulary) - i)) for token, i in vocabulary.items()], 0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert tokenizer.encode("owl", add_special_tokens=False) == [4]
    (paths,) = answer_tokens(tokenizer, {"owl": ("owl",)})
    assert (3,) in paths
    assert (4,) in paths


def test_an_answer_that_the_tokenizer_does_not_know_is_named(tiny):
    with pytest.raises(ValueError, match=r"does not know the answer 'axolotl'. Leave it out, or write it otherwise"):
        answer_tokens(tiny.tokenizer, {"owl": ("owl",), "axolotl": ("axolotl",)})


def test_answers_that_the_tokenizer_cannot_tell_apart_are_named(tiny):
    with pytest.raises(ValueError, match=r"writes forms of 'owl' and of 'OWL' alike \('owl'\)"):
        answer_tokens(tiny.tokenizer, {"owl": ("owl",), "OWL": ("OWL",)})
