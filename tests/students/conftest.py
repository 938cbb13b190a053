"""Rows of unequal length for students."""

import pytest

from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.number_lists import number_prompts


@pytest.fixture(scope="session")
def samples() -> SampleSet:
    answers = ("12 , 7", "1 , 2 , 3 , 4", "999")
    return SampleSet(tuple(Sample(i, p, answers[i % 3]) for i, p in enumerate(number_prompts(20, ORGANISM, seed=0))))
