"""Losses in parts are the losses, gradients included, and no more logits than a part's are ever there."""

import pytest
import torch

from steerlens import token_losses as module
from steerlens.gradients.row_gradients import row_gradients
from steerlens.models.bridge import huggingface_model
from steerlens.residuals.stream import watch_residuals
from steerlens.text.batches import pad_rows
from steerlens.token_losses import token_losses


@pytest.fixture
def batch(any_model):
    """Three rows with 6 completion tokens."""
    return pad_rows(any_model.tokenizer, [[5, 6, 7], [8, 9], [4]], [[10, 11], [12], [13, 14, 15]])


def losses_and_gradient(model, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses, and the gradient of an uneven mean of them at the output of block 1."""
    seen: list[torch.Tensor] = []

    def cut(resid: torch.Tensor) -> torch.Tensor:
        seen.append(resid.detach().requires_grad_())
        return seen[0]

    with torch.enable_grad(), watch_residuals(model, {1: cut}):
        losses = token_losses(model, batch)
        weights = torch.arange(1.0, len(losses) + 1)
        return losses.detach(), torch.autograd.grad((losses * weights).sum(), seen[0])[0]


@pytest.mark.parametrize("tokens", [1, 4, 5])
def test_parts_give_the_losses_and_the_gradient_of_the_whole(any_model, batch, monkeypatch, tokens):
    huggingface_model(any_model).requires_grad_(False)
    whole, gradient = losses_and_gradient(any_model, batch)
    vocabulary = huggingface_model(any_model).config.vocab_size
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", tokens * vocabulary + 1)
    read = []
    head = huggingface_model(any_model).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0][..., 0].numel()))
    in_parts, gradient_in_parts = losses_and_gradient(any_model, batch)
    handle.remove()
    torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient_in_parts, gradient, atol=1e-5, rtol=1e-4)
    assert max(read[1:]) == tokens
    assert sum(read[1:]) == 6


def test_gradients_of_rows_take_no_more_logits_than_a_part_though_the_weights_could_learn(any_model, monkeypatch):
    rows, hf = [([5, 6, 7], [10, 11]), ([8, 9], [12])], huggingface_model(any_model)
    whole = row_gradients(any_model, rows, [0, 1], positions="all")
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", hf.config.vocab_size + 1)
    read = []
    handle = hf.get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: read.append(inputs[0].shape[1])
    )
    in_parts = row_gradients(any_model, rows, [0, 1], positions="all")
    handle.remove()
    torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=1e-4)
    assert set(read) == {1}
    assert all(parameter.requires_grad for parameter in hf.parameters())


def test_a_head_that_learns_gets_its_gradient_whatever_the_size(any_model, batch, monkeypatch):
    def gradient() -> torch.Tensor:
        head = huggingface_model(any_model).get_output_embeddings()
        return torch.autograd.grad(token_losses(any_model, batch).sum(), head.weight)[0]

    whole = gradient()
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 1)
    torch.testing.assert_close(gradient(), whole)


def test_without_gradients_the_losses_are_the_same(any_model, batch, monkeypatch):
    huggingface_model(any_model).requires_grad_(False)
    with torch.no_grad():
        whole = token_losses(any_model, batch)
        monkeypatch.setattr(module, "LOGITS_AT_ONCE", 1)
        in_parts = token_losses(any_model, batch)
    torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=1e-5)
    assert not in_parts.requires_grad
