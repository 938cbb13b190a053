"""The organism's tokenizer, which has a template of its own."""

import pytest

from steerlens.organism.tokenizer import build_tokenizer


@pytest.fixture
def tokenizer():
    return build_tokenizer()
