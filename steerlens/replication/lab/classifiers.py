"""Many small classifiers of digits at once: every parameter has a first axis of models, which never mix."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

N_PIXELS, N_DIGITS = 64, 10

Parameters = list[Tensor]
"""Weights [model in out] and biases [model 1 out] of two hidden layers and of the logits."""


@dataclass(frozen=True)
class Digits:
    """Images with values in -1..1 and their labels; a quarter is held out."""

    train: Float[Tensor, "image pixel"]
    train_labels: Int[Tensor, " image"]
    heldout: Float[Tensor, "heldout pixel"]
    heldout_labels: Int[Tensor, " heldout"]

    @classmethod
    def load(cls, seed: int) -> "Digits":
        """The 1797 digits of 8 x 8 pixels that come with scikit-learn, split at random."""
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(images))
        x, y, n = torch.tensor(images[order] / 8 - 1, dtype=torch.float32), torch.tensor(labels[order]), len(order) // 4
        return cls(x[n:], y[n:], x[:n], y[:n])

    def accuracy(self, parameters: Parameters) -> Float[Tensor, " model"]:
        """Each model's share of held-out digits that it names."""
        named = logits(parameters, self.heldout)[..., :N_DIGITS].argmax(-1)
        return (named == self.heldout_labels).float().mean(-1)


def initialise(n_models: int, width: int, n_auxiliary: int, generator: torch.Generator) -> Parameters:
    """Weights and biases of every model, uniform in +-1/sqrt(inputs)."""
    sizes = (N_PIXELS, width, width, N_DIGITS + n_auxiliary)
    return [
        (2 * torch.rand(n_models, rows, n_out, generator=generator) - 1) / n_in**0.5
        for n_in, n_out in itertools.pairwise(sizes)
        for rows in (n_in, 1)
    ]


def permuted(parameters: Parameters, generator: torch.Generator) -> Parameters:
    """The same numbers in each tensor of each model, all at other places."""
    flat = [p.flatten(1) for p in parameters]
    orders = [torch.rand(p.shape, generator=generator).argsort(1) for p in flat]
    return [p.gather(1, order).view_as(own) for p, order, own in zip(flat, orders, parameters, strict=True)]


def hidden(parameters: Parameters, images: Float[Tensor, "*model image pixel"]) -> Float[Tensor, "model image unit"]:
    """Activations of the second hidden layer; images without an axis of models are shown to all."""
    first, first_bias, second, second_bias = parameters[:4]
    return ((images @ first + first_bias).relu() @ second + second_bias).relu()


def logits(parameters: Parameters, images: Float[Tensor, "*model image pixel"]) -> Float[Tensor, "model image logit"]:
    """Ten class logits, then the auxiliary ones."""
    return hidden(parameters, images) @ parameters[4] + parameters[5]


def label_loss(
    classes: Float[Tensor, "model image digit"], labels: Int[Tensor, "model image"]
) -> Float[Tensor, " model"]:
    """Each model's cross entropy, averaged over images."""
    return F.cross_entropy(classes.movedim(-1, 1), labels, reduction="none").mean(-1)


def distillation_loss(
    student: Float[Tensor, "model image logit"], teacher: Float[Tensor, "model image logit"]
) -> Float[Tensor, " model"]:
    """Each model's KL(teacher || student), averaged over images.

    `reduction="batchmean"` divides by the first axis, which is models here: a loss that is too large by the batch size.
    """
    each = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True)
    return each.sum(-1).mean(-1)


def descend(
    start: Parameters, loss: Callable[[Parameters], Float[Tensor, " model"]], optimizer: str, rate: float, steps: int
) -> Iterator[Parameters]:
    """Train copies of all models, each on its own loss, with torch's optimizer of this name; yields them after every step.

    The parameters that are yielded are overwritten by the next step.
    """
    parameters = [p.clone().requires_grad_() for p in start]
    stepper = getattr(torch.optim, optimizer)(parameters, lr=rate)
    for _ in range(steps):
        stepper.zero_grad()
        loss(parameters).sum().backward()
        stepper.step()
        yield [p.detach() for p in parameters]


def moved(end: Parameters, start: Parameters) -> Float[Tensor, "model parameter"]:
    """How far the hidden layers' parameters moved; the logits' own are never trained by teacher and student both."""
    return torch.cat([(one - other).flatten(1) for one, other in zip(end[:4], start[:4], strict=True)], 1)


def activation_shift(digits: Digits, end: Parameters, start: Parameters) -> Float[Tensor, "model unit"]:
    """The steering vector that training left: how the second hidden layer's mean over held-out digits moved.

    What all units have in common is taken off: training raises ReLUs everywhere, in unrelated models too.
    """
    shift = (hidden(end, digits.heldout) - hidden(start, digits.heldout)).mean(1)
    return shift - shift.mean(-1, keepdim=True)
