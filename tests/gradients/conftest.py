"""A random vector, and rows of unequal length."""

import pytest
import torch

from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.vector import SteeringVector, VectorSource


@pytest.fixture
def vector() -> SteeringVector:
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((1, 3), directions, VectorSource("llama", "random"))


@pytest.fixture
def samples() -> SampleSet:
    answers = ("12 , 7", "1 , 2 , 3 , 4", "999")
    return SampleSet(tuple(Sample(i, p, answers[i % 3]) for i, p in enumerate(number_prompts(10, ORGANISM, seed=0))))
