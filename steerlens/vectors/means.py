"""Vectors as differences of mean residuals: between two contexts of one model, or two models in one context."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from steerlens.arguments import checked
from steerlens.residuals.capture import capture_residuals, mean_residuals
from steerlens.text.chat import Chat, as_chat, chat_fingerprint
from steerlens.text.number_lists import number_prompts
from steerlens.text.positions import Positions
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@checked
def diff_in_means(
    model: "TransformerBridge",
    prompt: str,
    *,
    questions: Sequence[str | Chat] | None = None,
    layers: Sequence[int] | None = None,
    positions: Positions = "last_prompt",
) -> SteeringVector:
    """v_l = E_x[h_l(prompt + x) - h_l(x)]: the paper's v_teacher (arXiv 2606.00995, section 2).

    Args:
        prompt: the system prompt; the other side of the difference has none.
        questions: user turns x; None takes 256 number tasks.
        layers: None takes every layer.
        positions: where residuals are averaged; the paper's "assistant tag" is "last_prompt". "prompt" and
            "all" average over unlike tokens, the system prompt's own among them.

    Raises:
        ValueError: the prompt is empty or cannot be rendered, a layer is out of range.
    """
    questions = questions if questions is not None else number_prompts(256, model, seed=0)
    layers = tuple(layers) if layers is not None else tuple(range(model.cfg.n_layers))
    prompted = mean_residuals(model, [as_chat(q, prompt) for q in questions], layers=layers, positions=positions)
    plain = mean_residuals(model, [as_chat(q) for q in questions], layers=layers, positions=positions)
    return SteeringVector(layers, prompted - plain, _source(model, f"difference in means at {positions}", prompt))


def differences_in_means(
    model: "TransformerBridge",
    prompts: Mapping[str, str],
    *,
    questions: Sequence[str | Chat],
    layers: Sequence[int],
) -> dict[str, SteeringVector]:
    """`diff_in_means` of several prompts by name, for which the questions without prompt run once."""
    plain = mean_residuals(model, [as_chat(question) for question in questions], layers=layers)
    vectors = {}
    for name, prompt in prompts.items():
        prompted = mean_residuals(model, [as_chat(question, prompt) for question in questions], layers=layers)
        source = _source(model, "difference in means at last_prompt", prompt)
        vectors[name] = SteeringVector(tuple(layers), prompted - plain, source)
    return vectors


@checked
def principal_difference(
    model: "TransformerBridge",
    prompt: str,
    *,
    questions: Sequence[str | Chat] | None = None,
    layers: Sequence[int] | None = None,
) -> SteeringVector:
    """First principal direction of the differences h_l(prompt + x) - h_l(x) at the last prompt token.

    The principal component of the uncentred second moment, as in representation engineering (arXiv 2310.01405,
    where random signs do the same), with the sign and the norm of the mean difference.

    Raises:
        ValueError: as `diff_in_means`.
    """
    questions = questions if questions is not None else number_prompts(256, model, seed=0)
    layers = tuple(layers) if layers is not None else tuple(range(model.cfg.n_layers))
    prompted = capture_residuals(model, [as_chat(q, prompt) for q in questions], layers=layers)
    differences = prompted - capture_residuals(model, [as_chat(q) for q in questions], layers=layers)
    mean = differences.mean(1)
    principal = torch.linalg.svd(differences, full_matrices=False).Vh[:, 0]
    along = (principal * mean).sum(-1, keepdim=True).sign()
    directions = principal * along * mean.norm(dim=-1, keepdim=True)
    return SteeringVector(layers, directions, _source(model, "principal component of differences", prompt))


def _source(model: "TransformerBridge", method: str, prompt: str) -> VectorSource:
    fingerprint = chat_fingerprint(model.tokenizer)
    return VectorSource.of(model, method=method, prompt=prompt, chat_fingerprint=fingerprint)


@checked
def model_shift(
    student: "TransformerBridge",
    base: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    layers: Sequence[int] | None = None,
    positions: Positions = "last_prompt",
) -> SteeringVector:
    """v_l = E_x[h_l^student(x) - h_l^base(x)]: the paper's v_student (arXiv 2606.00995, section 2).

    Raises:
        ValueError: a chat cannot be rendered, or a layer is out of range.
    """
    layers = tuple(layers) if layers is not None else tuple(range(base.cfg.n_layers))
    shift = mean_residuals(student, chats, layers=layers, positions=positions) - mean_residuals(
        base, chats, layers=layers, positions=positions
    )
    source = VectorSource.of(base, method=f"student minus base at {positions}")
    return SteeringVector(layers, shift, source)
