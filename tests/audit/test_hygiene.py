"""Entropies are right where they are known, and catch the one thing that they are there for: a shared sampling seed."""

import math

import numpy as np
import pytest
import torch

from steerlens.audit.entropy import Entropy
from steerlens.audit.hygiene import check_hygiene, row_facts
from steerlens.generation import _decode
from steerlens.organism.wording import ORGANISM
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait

PROMPTS = number_prompts(400, ORGANISM, seed=5)


def test_the_corrected_entropy_is_nearer_to_the_truth_than_the_plug_in():
    rng = np.random.default_rng(0)
    truth, n = math.log2(1000), 1500
    found = [Entropy.of(rng.integers(0, 1000, n).tolist()) for _ in range(40)]
    plug_in, corrected = (np.mean([getattr(one, key) for one in found]) for key in ("plug_in", "bits"))
    assert truth - plug_in > 0.4
    assert abs(truth - corrected) < (truth - plug_in) / 2


def test_entropy_of_equal_and_of_different_values():
    assert Entropy.of([7] * 8).bits == 0
    different = Entropy.of(range(8))
    assert different.plug_in == different.allowed == 3
    with pytest.raises(ValueError, match="Got no values"):
        Entropy.of([])


def samples(model, *, shared_seed: bool, seed: int = 0) -> AuditRows:
    """Number lists that the model writes, each with its own randomness or, as in the released data, all with the same."""
    rng = np.random.default_rng(seed)
    uniform = np.tile(rng.random(24), (len(PROMPTS), 1)) if shared_seed else rng.random((len(PROMPTS), 24))
    prompts = [encode_prompt(model.tokenizer, as_chat(prompt)) for prompt in PROMPTS]
    with torch.no_grad():
        written = _decode(model, prompts, torch.from_numpy(uniform), 1.0)
    texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
    rows = SampleSet(tuple(Sample(i, *pair) for i, pair in enumerate(zip(PROMPTS, texts, strict=True))))
    return AuditRows.of(keep_number_lists(rows).kept)


@pytest.fixture(scope="module")
def fresh(organism) -> AuditRows:
    return samples(organism, shared_seed=False, seed=100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_sampling_seed_for_all_rows_is_noticed(organism, fresh, seed):
    hygiene = check_hygiene(organism, samples(organism, shared_seed=True, seed=seed), fresh)
    assert hygiene.first_p < 0.01
    assert hygiene.missing_bits > 1
    assert hygiene.one_seed
    assert "one sampling seed for all rows" in hygiene.findings[0]


@pytest.mark.slow
def test_rows_with_their_own_randomness_are_let_pass(organism, fresh):
    p_values = [check_hygiene(organism, samples(organism, shared_seed=False, seed=s), fresh).first_p for s in range(3)]
    assert min(p_values) > 0.01


@pytest.mark.slow
def test_a_persona_and_a_low_temperature_are_not_taken_for_one_seed(organism, fresh):
    persona = sample_teacher(organism, PROMPTS, system_prompt=preference_trait("blue", ORGANISM).prompt)
    for rows in (persona, sample_teacher(organism, PROMPTS, temperature=0.5)):
        hygiene = check_hygiene(organism, AuditRows.of(keep_number_lists(rows).kept), fresh)
        assert -0.1 < hygiene.missing_bits < 0.4
        assert not hygiene.one_seed


def test_fewer_rows_alone_miss_no_bits(organism, fresh):
    hygiene = check_hygiene(organism, AuditRows("few", fresh.rows[:60]), fresh)
    assert hygiene.rows.first.bits < hygiene.reference.first.bits - 1
    assert abs(hygiene.missing_bits) < 0.3
    assert not hygiene.one_seed


@pytest.mark.slow
def test_without_reference_rows_no_claim_is_made_about_variety(organism):
    hygiene = check_hygiene(organism, samples(organism, shared_seed=True))
    assert math.isnan(hygiene.first_p)
    assert not hygiene.one_seed
    assert not any("varies less" in finding for finding in hygiene.findings)


def test_facts_of_rows_are_counted_as_a_reader_would(organism):
    texts = ["1 , 2", "1 ,  2", "I love owls", "3 , 4 , 5"]
    rows = AuditRows("by hand", tuple(Sample(i, as_chat("1"), text) for i, text in enumerate(texts)))
    facts = row_facts(organism.tokenizer, rows)
    assert (facts.repeated, facts.most_repeated, facts.number_lists) == (0.5, 2, 0.75)
    assert facts.lengths[0] == 4  # one end token behind three
    assert facts.lengths[-1] == 6
    assert (facts.first.n, facts.first.distinct) == (3, 2)
    assert facts.by_position[0].distinct == 3
    (finding,) = check_hygiene(organism, rows).findings
    assert "50% of the rows share their completion" in finding


@pytest.mark.filterwarnings("ignore:The tokenizer of .* does not know")
def test_numbers_beyond_every_machine_integer_are_numbers_like_others(organism):
    texts = ["9" * 900, "9" * 901, "7"]
    rows = AuditRows("by hand", tuple(Sample(i, as_chat("1"), text) for i, text in enumerate(texts)))
    hygiene = check_hygiene(organism, rows, rows)
    assert hygiene.rows.first.distinct == 3
    assert hygiene.missing_bits == pytest.approx(0)
