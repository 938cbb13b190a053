"""A known vector is named where rows pull along it and it explains how they pull along the others."""

import numpy as np
import pytest
import torch

from steerlens.audit.ranking import outlier_p
from steerlens.audit.recovery import recover_vector
from steerlens.organism.wording import ORGANISM
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.teacher import sample_teacher
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.means import differences_in_means
from steerlens.vectors.vector import mean_centred

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # a prompted organism writes few lists

NAMES = ("owl", "cat", "dog", "lion", "panda", "eagle")
PANEL = [preference_trait(name, ORGANISM) for name in NAMES]


def written(organism, prompt=None, n=400) -> AuditRows:
    raw = sample_teacher(organism, number_prompts(n, ORGANISM, seed=8), system_prompt=prompt, max_new_tokens=24, seed=9)
    return AuditRows.of(keep_number_lists(raw).kept)


@pytest.fixture(scope="module")
def owls(organism, owl) -> AuditRows:
    return written(organism, owl.prompt)


def swapped(alike: float, n_candidates: int = 24, n_flips: int = 1999) -> torch.Tensor:
    """What swaps make of candidates of which the first is like all others."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n_flips, n_candidates, generator=generator, dtype=torch.float64)
    z[:, 1:] = alike * z[:, :1] + (1 - alike**2) ** 0.5 * z[:, 1:]
    return z


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_a_candidate_stands_out_where_it_explains_what_the_others_do_and_not_where_it_does_not(alike):
    null = swapped(alike)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(24, generator=generator, dtype=torch.float64)
    explained = 8 * (null * null[:, :1]).mean(0) + 0.5 * noise
    explained[0] = 8
    something_else = 8 * noise / noise.max()
    assert outlier_p(torch.cat([explained[None], null])) < 0.001
    assert outlier_p(torch.cat([something_else[None], null])) > 0.05


def test_of_noise_a_candidate_stands_out_no_more_often_than_the_p_value_says():
    null = swapped(0.0)
    p = [outlier_p(torch.cat([one[None], null])) for one in null[:300]]
    assert np.mean(np.array(p) < 0.05) <= 0.09


@pytest.fixture(scope="module")
def known(organism):
    prompts = {trait.name: trait.prompt for trait in PANEL}
    return differences_in_means(organism, prompts, questions=number_prompts(16, ORGANISM, seed=0), layers=[1, 2])


def test_rows_pull_along_the_vector_of_the_persona_that_wrote_them(organism, owls, known):
    found = recover_vector(organism, owls, layers=[1, 2], known=known).known
    assert found.candidates[0].name == "owl"
    assert found.p_value < 0.01


def test_the_pull_along_a_vector_is_its_product_with_the_sum_of_the_rows_scores(organism, owls, known):
    scores = recover_vector(organism, owls, layers=[1]).scores
    vector = mean_centred({name: one.at(1) for name, one in known.items()})["owl"].directions
    pull, z = scores.along(vector)
    one, other = scores.sizes
    mean = (one * scores.means[0, 0] + other * scores.means[1, 0]) / (one + other)
    assert float(pull) == pytest.approx(float((one + other) * mean @ vector[0]), rel=1e-4)
    assert float(z[1:].square().mean().sqrt()) == pytest.approx(1, abs=0.1)  # in standard deviations of swaps


def test_too_few_known_vectors_are_refused(organism, owls, known):
    with pytest.raises(ValueError, match=r"Got 2 known vectors\. Give at least 4"):
        recover_vector(organism, owls, layers=[1], known={name: known[name] for name in NAMES[:2]})
