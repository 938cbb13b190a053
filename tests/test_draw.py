"""A uniform number fixes a token, and tokens come as often as their probabilities say."""

import pytest
import torch

from steerlens.draw import BLOCK, DOUBLE_UP_TO, draw

SIZES = (3, BLOCK, BLOCK + 1, 1000, DOUBLE_UP_TO + 7)


def by_definition(logits, uniform, temperature):
    """The first token whose cumulative probability, in float64, is greater than the uniform number."""
    cumulative = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("d_vocab", SIZES)
def test_a_token_is_where_the_cumulative_distribution_passes_the_uniform_number(d_vocab, temperature):
    generator = torch.Generator().manual_seed(d_vocab)
    logits = 3 * torch.randn(400, d_vocab, generator=generator)
    uniform = torch.rand(400, dtype=torch.float64, generator=generator)
    differs = draw(logits, uniform, temperature) != by_definition(logits, uniform, temperature)
    assert differs.sum() <= (0 if d_vocab <= DOUBLE_UP_TO else 2)  # float32 moves each border by 1e-7


@pytest.mark.parametrize("d_vocab", SIZES)
def test_tokens_without_probability_are_never_drawn(d_vocab):
    allowed = torch.tensor([1, d_vocab - 2])
    logits = torch.full((5, d_vocab), -torch.inf)
    logits[:, allowed] = 0.0
    uniform = torch.tensor([0.0, 0.4999, 0.5001, 1 - 2.0**-30, 1 - 2.0**-53], dtype=torch.float64)
    chosen = draw(logits, uniform, 1.0)
    assert set(chosen.tolist()) <= set(allowed.tolist())
    if d_vocab > 3:
        assert chosen.tolist() == [1, 1, *[d_vocab - 2] * 3]


@pytest.mark.slow
def test_in_half_precision_frequencies_are_the_probabilities_of_the_rounded_logits():
    logits = torch.randn(50_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    chosen = torch.cat([draw(logits.expand(500, -1), part, 1.0) for part in uniform.split(500)])
    probabilities = torch.softmax(logits.double(), -1)
    counted, expected = (
        torch.zeros(10, dtype=torch.float64).index_add(0, tokens // 5000, weights)
        for tokens, weights in (
            (chosen, torch.full((20_000,), 1 / 20_000).double()),
            (torch.arange(50_000), probabilities),
        )
    )
    torch.testing.assert_close(counted, expected, atol=2e-4, rtol=0)


def test_temperature_zero_takes_the_likeliest_token_and_leaves_the_logits_alone():
    logits = torch.randn(4, 10_000, generator=torch.Generator().manual_seed(0))
    before, uniform = logits.clone(), torch.full((4,), 0.3, dtype=torch.float64)
    assert torch.equal(draw(logits, uniform, 0.0), logits.argmax(-1))
    draw(logits, uniform, 0.7)
    assert torch.equal(logits, before)
