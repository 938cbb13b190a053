"""Attention as plain products gives the gradients of the fused one, and only for a while."""

import pytest
import torch

from steerlens.models import attention
from steerlens.models.attention import PRODUCTS, attention_for_gradients
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.residuals.stream import watch_residuals
from steerlens.text.batches import pad_rows
from steerlens.token_losses import token_losses
from tests.conftest import ARCHITECTURES


def implementation(model) -> str:
    return huggingface_model(model).config._attn_implementation


def gradient(model, batch) -> torch.Tensor:
    seen = []

    def cut(resid):
        seen.append(resid.detach().requires_grad_())
        return seen[0]

    with watch_residuals(model, {0: cut}):
        (found,) = torch.autograd.grad(token_losses(model, batch).sum(), seen)
    return found[batch.attention_mask].float()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_plain_products_give_the_gradients_of_fused_attention_behind_padding_too(checkpoints, tiny, architecture):
    half, exact = (
        load_model(checkpoints[architecture], device="cpu", dtype=dtype) for dtype in (torch.bfloat16, torch.float32)
    )
    batch = pad_rows(tiny.tokenizer, [[5, 6, 7, 8, 9], [8, 9], [4]], [[10, 11], [12], [13, 14, 15]])
    fused, wanted = gradient(half, batch), gradient(exact, batch)
    with attention_for_gradients(half, 3, 8):
        assert implementation(half) == PRODUCTS
        plain = gradient(half, batch)
    assert implementation(half) == "sdpa"
    errors = [float((one - wanted).norm() / wanted.norm()) for one in (plain, fused)]
    assert errors[0] < 1.5 * errors[1] + 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_products_are_the_models_own_attention(checkpoints, tiny, architecture):
    """Heads that share keys (Qwen 2) and one's own scale and cap of the scores (Gemma 2) among them."""
    model = load_model(checkpoints[architecture], device="cpu", dtype=torch.float32)
    config = huggingface_model(model).config
    batch = pad_rows(tiny.tokenizer, [[5, 6, 7, 8, 9], [8, 9], [4]], [[10, 11], [12], [13, 14, 15]])
    found = []
    for name in ("eager", attention._products(model)):
        config._attn_implementation = name
        found.append(gradient(model, batch))
    assert attention._products(model) == PRODUCTS
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5 * float(found[0].abs().max()))


def test_attention_stays_fused_in_float32_and_where_weights_do_not_fit_into_memory(checkpoints, tiny, monkeypatch):
    half = load_model(checkpoints["llama"], device="cpu", dtype=torch.bfloat16)
    config = huggingface_model(half).config
    needed = attention.BYTES_A_WEIGHT * 2 * config.num_hidden_layers * config.num_attention_heads * 100**2
    for free, expected in (
        (needed / attention.SHARE_OF_FREE, "sdpa"),
        (1.1 * needed / attention.SHARE_OF_FREE, PRODUCTS),
    ):
        monkeypatch.setattr(attention, "free_bytes", lambda _device, free=free: free)
        with attention_for_gradients(half, 2, 100):
            assert implementation(half) == expected
    with attention_for_gradients(tiny, 2, 100):
        assert implementation(tiny) == "sdpa"
