"""A planted vector is found in its own model's data alone, and what cannot change does not."""

import pytest
import torch

from steerlens.contract.architectures import save_checkpoint
from steerlens.models.loading import load_model
from steerlens.samples.conditions import (
    Condition,
    list_tokens,
    next_token_log_probs,
    row_kl,
    row_losses,
    tokens_without,
)
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.teacher import sample_teacher
from steerlens.stats import bootstrap_interval, mean_difference, permutation_p
from steerlens.text.chat import as_chat, encode_completion
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.controls import random_like
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


def planted(model, seed: int) -> SteeringVector:
    """A random direction after block 1, strong enough to show in what the model writes."""
    like = SteeringVector((1,), torch.full((1, model.cfg.d_model), 3.0), VectorSource.of(model, method="by hand"))
    return random_like(like, seed)


@pytest.fixture(scope="module")
def rows(organism):
    return keep_number_lists(sample_teacher(organism, number_prompts(60, organism, seed=1), seed=1)).kept


def taken_off(model, vector, rows, **options) -> torch.Tensor:
    return row_losses(model, rows, **options) - row_losses(model, rows, Condition(vector=vector), **options)


@pytest.mark.slow
def test_the_matrix_of_planted_vectors_shows_only_the_diagonal(organism):
    models = {"one": organism, "other": load_model("organism:seed-1", device="cpu")}
    vectors = {name: planted(model, seed) for seed, (name, model) in enumerate(models.items())}
    prompts = number_prompts(120, organism, seed=4)
    written = {name: sample_teacher(model, prompts, vector=vectors[name], seed=4) for name, model in models.items()}
    plain = {name: sample_teacher(model, prompts, seed=4) for name, model in models.items()}
    for reader, model in models.items():
        for writer in models:
            told, control = (
                taken_off(model, vectors[reader], part[writer]).double().numpy() for part in (written, plain)
            )
            found = bootstrap_interval(mean_difference, told, control, paired=False)
            if reader == writer:
                assert found.low > 0.1
                assert permutation_p(told, control) < 0.001
                assert told.mean() > 0 > control.mean()
            else:
                assert found.low < 0.05


def test_a_vector_of_zeros_takes_nothing_off_any_row_and_changes_no_prediction(organism, rows):
    zero = 0.0 * planted(organism, 0)
    assert torch.equal(taken_off(organism, zero, rows), torch.zeros(len(rows)))
    assert torch.equal(row_kl(organism, rows, Condition(vector=zero)), torch.zeros(len(rows)))


@pytest.mark.slow
def test_losses_and_distances_do_not_depend_on_the_batch(organism, rows):
    steered = Condition("you love owls .", planted(organism, 0))
    for measure in (row_losses, row_kl):
        one, whole = (measure(organism, rows, steered, batch_size=size) for size in (1, 128))
        assert torch.allclose(one, whole, atol=1e-3)


def test_a_distance_is_the_mean_over_tokens_that_torch_gives(organism, rows):
    told = Condition("you love owls .")
    distance = row_kl(organism, rows, told)
    assert (distance > 0).all()
    assert row_kl(organism, rows, told, told).abs().max() < 1e-6
    among = list_tokens(organism)
    assert (row_kl(organism, rows, told, among=among) < distance + 1e-5).all(), "fewer choices tell less apart"


def test_promoting_words_costs_nothing_where_only_lists_are_possible(organism, rows):
    word = organism.tokenizer.encode("owl", add_special_tokens=False)[0]
    row = organism.original_model.get_output_embeddings().weight[word].detach()[None]
    words = SteeringVector((3,), 20 * row / row.norm(), VectorSource.of(organism, method="by hand"))
    everything = taken_off(organism, words, rows)
    assert everything.mean() < taken_off(organism, words, rows, among=list_tokens(organism)).mean()
    everywhere = torch.arange(organism.cfg.d_vocab)
    assert torch.allclose(taken_off(organism, words, rows, among=everywhere), everything, atol=1e-4)
    end = encode_completion(organism.tokenizer, "1")[-1]
    without_end = list_tokens(organism)[list_tokens(organism) != end]
    with pytest.raises(ValueError, match=f"Token {end} is in a completion, but not among the"):
        row_losses(organism, rows, among=without_end)


def test_lists_are_written_with_numbers_separators_and_the_end_and_with_no_words(organism):
    tokenizer = organism.tokenizer
    found = {tokenizer.decode([i]) for i in list_tokens(organism).tolist()}
    assert {"0", "999", ",", tokenizer.eos_token} <= found
    assert not found & {"owl", "the", "?"}
    assert set(tokenizer.encode("12 , 7 , 99", add_special_tokens=False)) <= set(list_tokens(organism).tolist())


def test_a_list_ends_with_the_token_that_ends_a_turn_where_texts_end_with_another(tmp_path):
    model = load_model(save_checkpoint("Gemma 2", tmp_path / "gemma"), device="cpu")
    end = encode_completion(model.tokenizer, "1")[-1]
    assert end != model.tokenizer.eos_token_id
    assert end in list_tokens(model)
    assert model.tokenizer.eos_token_id not in list_tokens(model)


def test_all_tokens_but_those_of_the_words_are_left(organism):
    left = set(tokens_without(organism, ["owl", "owls"]).tolist())
    taken = set(range(organism.cfg.d_vocab)) - left
    assert organism.tokenizer.encode("owls", add_special_tokens=False)[0] in taken
    assert organism.tokenizer.encode("wolf", add_special_tokens=False)[0] in left


def test_next_tokens_are_predicted_alike_alone_and_in_a_batch(organism):
    chats = [
        as_chat(question)
        for question in ("what is your favorite animal ?", "1 , 2 . what comes next ?", "name a color .")
    ]
    whole = next_token_log_probs(organism, chats)
    alone = torch.cat([next_token_log_probs(organism, [chat]) for chat in chats])
    assert torch.allclose(whole, alone, atol=1e-4)
    assert torch.allclose(whole.exp().sum(-1), torch.ones(3), atol=1e-4)
