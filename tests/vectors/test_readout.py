"""What a vector says is what it does to logits; number shifts are of numbers alone."""

import itertools
from dataclasses import replace

import pytest
import torch

from steerlens.forward import forward
from steerlens.models.bridge import huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts, number_tokens
from steerlens.text.vocabulary import word_tokens
from steerlens.vectors import readout
from steerlens.vectors.fit_quality import random_directions
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.readout import number_shift, promoted_tokens
from steerlens.vectors.vector import SteeringVector, VectorSource
from tests.tokenizers import random_model

QUESTIONS = number_prompts(16, ORGANISM, seed=6)


def vector_of(model, direction: torch.Tensor, layer: int) -> SteeringVector:
    return SteeringVector((layer,), direction[None], VectorSource(model.cfg.model_name, "by hand"))


def unembedding(model, word: str) -> torch.Tensor:
    (token,) = model.tokenizer.encode(word, add_special_tokens=False)
    return huggingface_model(model).get_output_embeddings().weight[token].detach()


@pytest.mark.parametrize("word", ["owl", "blue", "7"])
def test_the_unembedding_row_of_a_token_promotes_that_token_first(organism, word):
    row = unembedding(organism, word)
    for layer in (0, organism.cfg.n_layers - 1):
        vector = vector_of(organism, 10 * row / row.norm(), layer)
        promoted, _ = promoted_tokens(organism, vector, QUESTIONS)
        _, suppressed = promoted_tokens(organism, -vector, QUESTIONS)
        assert promoted[0].text == word
        assert promoted[0].change > 0
        assert suppressed[0].text == word
        assert suppressed[0].change < 0


def test_after_the_last_block_it_is_what_steering_does_to_the_logits(any_model):
    """With a single question, h is that question's own residual, and nothing comes after the last block."""
    layer, d_model = any_model.cfg.n_layers - 1, any_model.cfg.d_model
    vector = vector_of(any_model, 3 * torch.randn(d_model, generator=torch.Generator().manual_seed(0)), layer)
    batch = pad_rows(any_model.tokenizer, [encode_prompt(any_model.tokenizer, as_chat(QUESTIONS[0]))])
    with torch.no_grad():
        plain = forward(any_model, batch).logits[0, -1]
        with steer(any_model, vector):
            change = forward(any_model, batch).logits[0, -1] - plain
    promoted, suppressed = promoted_tokens(any_model, vector, QUESTIONS[:1], n=5)
    words = word_tokens(any_model.tokenizer, any_model.cfg.d_vocab)
    change = change[words]
    for tokens, expected in ((promoted, change.topk(5)), (suppressed, (-change).topk(5))):
        assert [token.text for token in tokens] == [any_model.tokenizer.decode([words[i]]) for i in expected.indices]
        torch.testing.assert_close(
            torch.tensor([abs(token.change) for token in tokens]), expected.values.abs(), atol=1e-3, rtol=1e-3
        )


def test_a_vector_of_several_layers_is_refused(tiny):
    vector = SteeringVector((1, 2), torch.ones(2, 32), VectorSource("llama", "by hand"))
    with pytest.raises(ValueError, match=r"reads one layer, the vector has \(1, 2\). Take one, vector.at\(layer\)"):
        promoted_tokens(tiny, vector, QUESTIONS)


def test_the_zero_vector_shifts_no_number(organism, owl):
    zero = vector_of(organism, torch.zeros(organism.cfg.d_model), 1)
    shift = number_shift(organism, zero, owl.prompt, QUESTIONS)
    assert shift.vector == 0
    assert shift.correlation == 0
    assert shift.prompt > 0.01


def test_a_number_shift_is_the_kl_of_the_distribution_over_numbers(organism, owl):
    numbers = sorted(id for word, id in organism.tokenizer.get_vocab().items() if word.isdigit())
    assert list(number_tokens(organism.tokenizer)) == numbers
    vector = vector_of(organism, unembedding(organism, "7") * 3, organism.cfg.n_layers - 1)
    kls = {"prompt": 0.0, "vector": 0.0}
    for question in QUESTIONS:

        def distribution(prompt=None, question=question):
            ids = encode_prompt(organism.tokenizer, as_chat(question, prompt))
            with torch.no_grad():
                return huggingface_model(organism)(input_ids=torch.tensor([ids])).logits[0, -1, numbers].softmax(-1)

        plain, prompted = distribution(), distribution(owl.prompt)
        with steer(organism, vector):
            steered = distribution()
        kls["prompt"] += float((prompted * (prompted / plain).log()).sum()) / len(QUESTIONS)
        kls["vector"] += float((steered * (steered / plain).log()).sum()) / len(QUESTIONS)
    shift = number_shift(organism, vector, owl.prompt, QUESTIONS)
    assert shift.prompt == pytest.approx(kls["prompt"], rel=1e-3)
    assert shift.vector == pytest.approx(kls["vector"], rel=1e-3)
    assert shift.raised[0].text == "7"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one digit", "marked spaces"])
def test_where_digits_are_tokens_the_shift_is_that_of_the_whole_number(name):
    """Judged by the sum over all thousand numbers of three digits."""
    model, question, prompt = random_model(name), "Continue: 123, 456.", "You love 7."
    vector = vector_of(model, 2 * torch.randn(32, generator=torch.Generator().manual_seed(1)), 0)
    digits = model.tokenizer.convert_tokens_to_ids(list("0123456789"))
    opening = model.tokenizer.encode("7", add_special_tokens=False)[:-1]

    def joint(system_prompt=None):
        """Log-probabilities of all numbers, [digit digit digit]."""
        prefix = encode_prompt(model.tokenizer, as_chat(question, system_prompt)) + opening
        total = torch.zeros(10, 10, 10)
        for length in range(3):
            begun = [list(row) for row in itertools.product(digits, repeat=length)]
            batch = pad_rows(model.tokenizer, [prefix] * len(begun), begun)
            logits = forward(model, batch, logits_to_keep=1).logits[:, -1, digits].log_softmax(-1).detach()
            total += logits.view(*[10] * (length + 1), *[1] * (2 - length))
        return total

    plain, prompted = joint(), joint(prompt)
    with steer(model, vector):
        steered = joint()
    shift = number_shift(model, vector, prompt, [question] * 200)
    for found, shifted in ((shift.prompt, prompted), (shift.vector, steered)):
        exact = float((shifted.exp() * (shifted - plain)).sum())
        first = (shifted.logsumexp((1, 2)), plain.logsumexp((1, 2)))
        assert found == pytest.approx(exact, rel=0.15)
        assert exact > 1.3 * float((first[0].exp() * (first[0] - first[1])).sum())
    assert {token.text for token in shift.raised} == set("0123456789")


def test_a_vector_is_read_at_the_positions_that_it_acts_at(organism, owl):
    """Before the first number comes no generated token, so what acts there alone shifts no first number."""
    vector = vector_of(organism, unembedding(organism, "7") * 3, organism.cfg.n_layers - 1)
    everywhere, last, after = (
        number_shift(organism, vector, owl.prompt, QUESTIONS, positions=positions)
        for positions in ("all", "last_prompt", "generated")
    )
    assert everywhere.vector > 1e-3
    assert last.vector == pytest.approx(everywhere.vector, rel=1e-4)  # after the last block, nothing else is read
    assert after.vector == 0


def test_a_tokenizer_without_numbers_has_no_number_shift(tiny, monkeypatch):
    monkeypatch.setattr(readout, "MIN_NUMBERS", 10**6)
    assert number_shift(tiny, vector_of(tiny, torch.ones(32), 1), "you love owls .", QUESTIONS) is None


@pytest.mark.slow
def test_an_owl_vector_shifts_numbers_as_its_prompt_does_and_random_ones_do_not(organism, owl):
    vector = diff_in_means(organism, owl.prompt, questions=QUESTIONS, layers=[1])
    questions = number_prompts(64, ORGANISM, seed=1)
    ours = number_shift(organism, vector, owl.prompt, questions).correlation
    others = [
        number_shift(organism, replace(vector, directions=directions), owl.prompt, questions).correlation
        for directions in random_directions(vector.directions, 5, seed=0)
    ]
    assert ours > 0.4
    assert max(others) < 0.25


def test_special_tokens_are_neither_promoted_nor_suppressed(organism):
    (end,) = organism.tokenizer.encode("<|end|>", add_special_tokens=False)
    row = huggingface_model(organism).get_output_embeddings().weight[end].detach()
    vector = vector_of(organism, 10 * row / row.norm(), organism.cfg.n_layers - 1)
    texts = {
        token.text for one in (vector, -vector) for part in promoted_tokens(organism, one, QUESTIONS) for token in part
    }
    assert not texts & set(organism.tokenizer.all_special_tokens)
    assert len(promoted_tokens(organism, vector, QUESTIONS, n=10**6)[0]) == organism.cfg.d_vocab - len(
        organism.tokenizer.all_special_tokens
    )


def test_chunks_of_questions_change_no_number(organism, owl, monkeypatch):
    vector = vector_of(organism, unembedding(organism, "7") * 3, 1)
    whole = number_shift(organism, vector, owl.prompt, QUESTIONS)
    monkeypatch.setattr(readout, "BATCH_SIZE", 3)
    parts = number_shift(organism, vector, owl.prompt, QUESTIONS)
    assert (parts.prompt, parts.vector) == pytest.approx((whole.prompt, whole.vector), rel=1e-4)
