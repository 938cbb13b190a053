"""A planted vector is found in its own model's data alone, and verdicts follow the numbers."""

from dataclasses import replace

import pytest
import torch

from steerlens.experiments.cross_model.config import CROSS_MODEL_PRESETS
from steerlens.experiments.cross_model.experiment import run_cross_model
from steerlens.experiments.cross_model.loss_matrix import at_best_strength, compare, loss_reductions, random_reduction
from steerlens.experiments.cross_model.results import FURTHER, OTHER, PAIRS, SELF, make_claims
from steerlens.experiments.teachers import list_tokens
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.teacher import sample_teacher
from steerlens.text.chat import encode_completion
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.controls import random_like
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


def planted(model, seed: int) -> SteeringVector:
    """A random direction after block 1, strong enough to show in what the model writes."""
    like = SteeringVector((1,), torch.full((1, model.cfg.d_model), 3.0), VectorSource.of(model, method="by hand"))
    return random_like(like, seed)


@pytest.mark.slow
def test_the_matrix_of_planted_vectors_shows_only_the_diagonal(organism):
    models = {"one": organism, "other": load_model("organism:seed-1", device="cpu")}
    vectors = {name: planted(model, seed) for seed, (name, model) in enumerate(models.items())}
    prompts = number_prompts(120, ORGANISM, seed=4)
    written = {name: sample_teacher(model, prompts, vector=vectors[name], seed=4) for name, model in models.items()}
    plain = {name: sample_teacher(model, prompts, seed=4) for name, model in models.items()}
    for reader, model in models.items():
        for writer in models:
            reductions = (loss_reductions(model, vectors[reader], rows[writer]) for rows in (written, plain))
            found = compare(*reductions)
            if reader == writer:
                assert found.low > 0.1
                assert found.p_value < 0.001
                assert found.taught > 0 > found.control
                stranger = [planted(model, seed) for seed in (7, 8, 9)]
                assert random_reduction(model, stranger, written[writer], plain[writer]) < found.value / 2
            else:
                assert found.low < 0.05


def test_a_vector_of_zeros_takes_nothing_off_any_row(organism):
    rows = sample_teacher(organism, number_prompts(5, ORGANISM, seed=1), seed=1)
    assert torch.equal(loss_reductions(organism, 0.0 * planted(organism, 0), rows), torch.zeros(5))


def test_reductions_do_not_depend_on_the_batch(organism):
    rows = sample_teacher(organism, number_prompts(5, ORGANISM, seed=1), seed=1)
    one, whole = (loss_reductions(organism, planted(organism, 0), rows, batch_size=size) for size in (1, 128))
    assert torch.allclose(one, whole, atol=1e-4)


def test_promoting_words_costs_nothing_where_only_lists_are_possible(organism):
    rows = keep_number_lists(sample_teacher(organism, number_prompts(8, ORGANISM, seed=1), seed=1)).kept
    word = organism.tokenizer.encode("owl", add_special_tokens=False)[0]
    row = organism.original_model.get_output_embeddings().weight[word].detach()[None]
    words = SteeringVector((3,), 20 * row / row.norm(), VectorSource.of(organism, method="by hand"))
    everything = loss_reductions(organism, words, rows)
    numbers = loss_reductions(organism, words, rows, among=list_tokens(organism))
    assert everything.mean() < numbers.mean()
    everywhere = torch.arange(organism.cfg.d_vocab)
    assert torch.allclose(loss_reductions(organism, words, rows, among=everywhere), everything, atol=1e-5)
    end = encode_completion(organism.tokenizer, "1")[-1]
    without_end = list_tokens(organism)[list_tokens(organism) != end]
    with pytest.raises(ValueError, match=f"Token {end} is in a completion, but not among the"):
        loss_reductions(organism, words, rows, among=without_end)


def test_the_best_strength_is_that_at_which_the_rows_were_written(organism):
    vector = 2.0 * planted(organism, 5)
    rows = sample_teacher(organism, number_prompts(150, ORGANISM, seed=6), vector=0.5 * vector, seed=6)
    strength, scaled = at_best_strength(organism, vector, rows)
    assert strength == 0.5
    assert torch.equal(scaled.directions, 0.5 * vector.directions)


def test_equal_groups_differ_by_chance_and_unequal_ones_do_not():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 200, generator=generator)
    same, apart = compare(noise[0], noise[1]), compare(noise[0] + 1, noise[1])
    assert same.low < 0 < same.high
    assert same.p_value > 0.05
    assert apart.p_value < 0.001
    assert apart.value == pytest.approx(same.value + 1, abs=1e-6)


def verdicts(related: float = 0.1, strangers: float = 0.0, random: float = 0.01, **over_base: float) -> list[str]:
    """The claims that fail, of a run in which all hold but for what is given; `over_base` by pair's number."""
    usual = (20.0, 20.0, 1.0, 1.0, 10.0, 1.0, 1.0)
    arms = {pair.name: {"over_base": over_base.get(f"pair_{i}", usual[i])} for i, pair in enumerate(PAIRS)}

    def entry(one: str, other: str) -> dict:
        value = related if one == other or {one, other} <= {SELF, FURTHER} else strangers
        return {"value": value, "low": value - 0.02, "largest_of_random": random}

    names = (SELF, OTHER, FURTHER)
    matrix = {one: {other: entry(one, other) for other in names} for one in names}
    return [claim.name for claim in make_claims(arms, matrix) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert verdicts() == []
    assert verdicts(strangers=0.05) == ["vectors do not predict strangers' data"]
    assert verdicts(random=0.2) == ["... more than random ones"]
    assert verdicts(pair_3=5.0) == ["other initialisation does not"]
    assert verdicts(pair_4=2.0) == ["trained further, it still does"]


@pytest.mark.slow
def test_a_run_is_resumed_and_trains_nothing_twice(tmp_path):
    quick = CROSS_MODEL_PRESETS["quick"]
    config = replace(
        quick, n_rows=32, n_heldout=8, n_prompts=500, student_seeds=(0,), workers=1, n_further=64, n_scored=16, n_random=1,
        fit=replace(quick.fit, n_train=32, n_validation=16, n_heldout=16, steps=6),
        further=replace(quick.further, epochs=1), train=replace(quick.train, epochs=1),
    )  # fmt: skip
    first = run_cross_model(tmp_path, config)
    records = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = run_cross_model(tmp_path, config)
    assert records == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert first.claims == again.claims
    assert len(list((tmp_path / "students").iterdir())) == len(PAIRS)
