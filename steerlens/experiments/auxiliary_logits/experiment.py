"""Subliminal learning in a small classifier: students learn digits from logits and images that show none.

Reference: Cloud et al., arXiv 2507.14805, the experiment on MNIST; here on the digits that come with scikit-learn.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.experiments.auxiliary_logits.config import AuxiliaryConfig
from steerlens.experiments.auxiliary_logits.models import (
    N_DIGITS,
    N_PIXELS,
    Digits,
    Parameters,
    descend,
    distillation_loss,
    hidden,
    initialise,
    label_loss,
    logits,
    permuted,
)
from steerlens.experiments.auxiliary_logits.report import auxiliary_report
from steerlens.experiments.rates import mean_interval
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.lock import alone

N_PROBES, N_PROBED = 20, 512


@alone
def run_auxiliary_logits(directory: str | Path, config: AuxiliaryConfig) -> ExperimentResult:
    """Train teachers on digits and students on noise; write results.json and report.html.

    Every model is an MLP 64-width-width-(10 + n_auxiliary). The teacher learns labels on its class logits. A student
    minimises KL(teacher || student) over the auxiliary logits alone, on images of uniform noise. Nothing moves its class
    logits' weights; what it comes to know of digits, it knows by its hidden layers. Students of all logits are the upper
    reference.
    """
    with _one_thread():
        results = _results(config)
    return conclude(Path(directory), (), results, auxiliary_report(results))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Models this small lose more to waiting threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _results(config: AuxiliaryConfig) -> dict[str, Any]:
    digits, generator = Digits.load(config.seed), torch.Generator().manual_seed(config.seed)
    start = initialise(config.n_models, config.width, config.n_auxiliary, generator)
    teacher = _teach(config, digits, start, generator)
    auxiliary, everything = slice(N_DIGITS, None), slice(None)
    other = initialise(config.n_models, config.width, config.n_auxiliary, generator)
    plans = {
        "same initialisation": (start, auxiliary),
        "other initialisation": (other, auxiliary),
        "permuted weights": (permuted(start, generator), auxiliary),
        "all logits": (start, everything),
    }
    return {
        "config": asdict(config),
        "teacher": _interval(digits.accuracy(teacher)),
        "untrained": _interval(digits.accuracy(start)),
        "students": [
            {"student": name, "optimizer": optimizer}
            | _distil(config, digits, (start, teacher), student, taught, optimizer)
            for optimizer in config.rates
            for name, (student, taught) in plans.items()
        ],
    }


def _teach(config: AuxiliaryConfig, digits: Digits, start: Parameters, generator: torch.Generator) -> Parameters:
    """Every model learns labels from batches of its own."""

    def loss(parameters: Parameters) -> Float[Tensor, " model"]:
        drawn = torch.randint(len(digits.train), (config.n_models, config.batch_size), generator=generator)
        return label_loss(logits(parameters, digits.train[drawn])[..., :N_DIGITS], digits.train_labels[drawn])

    *_, teacher = descend(start, loss, "Adam", config.teacher_rate, config.teacher_steps)
    return teacher


def _distil(
    config: AuxiliaryConfig,
    digits: Digits,
    teachers: tuple[Parameters, Parameters],
    start: Parameters,
    taught: slice,
    optimizer: str,
) -> dict[str, Any]:
    """Train one kind of student on the `taught` logits, and measure it.

    Args:
        teachers: before and after their training.
    """
    generator, every = torch.Generator().manual_seed(config.seed + 1), max(1, config.student_steps // N_PROBES)
    untaught, teacher = teachers

    def loss(parameters: Parameters, n: int = config.batch_size) -> Float[Tensor, " model"]:
        noise = 2 * torch.rand(config.n_models, n, N_PIXELS, generator=generator) - 1
        return distillation_loss(logits(parameters, noise)[..., taught], logits(teacher, noise)[..., taught])

    update, student, path = [], start, [_probe(digits, start, loss(start, N_PROBED), 0)]
    for step, student in enumerate(descend(start, loss, optimizer, config.rates[optimizer], config.student_steps), 1):
        if step == 1:
            update = _difference(student, start)
        if step % every == 0:
            path.append(_probe(digits, student, loss(student, N_PROBED), step))
    return {
        "accuracy": _interval(digits.accuracy(student)),
        "loss": _interval(loss(student, N_PROBED)),
        "update_cosine": _interval(_cosine(update, _difference(teacher, untaught))),
        "activation_cosine": _interval(_cosine([_shift(digits, student, start)], [_shift(digits, teacher, untaught)])),
        "path": path,
    }


def _probe(digits: Digits, student: Parameters, loss: Float[Tensor, " model"], step: int) -> dict[str, float]:
    """Means over models at some step."""
    return {"step": step, "loss": float(loss.mean()), "accuracy": float(digits.accuracy(student).mean())}


def _difference(end: Parameters, start: Parameters) -> list[Tensor]:
    """How far the hidden layers' parameters moved; the logits' own are never trained by teacher and student both."""
    return [one - other for one, other in zip(end[:4], start[:4], strict=True)]


def _shift(digits: Digits, end: Parameters, start: Parameters) -> Float[Tensor, "model unit"]:
    """The steering vector that training left: how the second hidden layer's mean over held-out digits moved.

    What all units have in common is taken off: training raises ReLUs everywhere, in unrelated models too.
    """
    shift = (hidden(end, digits.heldout) - hidden(start, digits.heldout)).mean(1)
    return shift - shift.mean(-1, keepdim=True)


def _cosine(one: list[Tensor], other: list[Tensor]) -> Float[Tensor, " model"]:
    """Each model's cosine between two lists of tensors, taken as one vector each."""
    flat, other_flat = (torch.cat([t.flatten(1) for t in tensors], 1) for tensors in (one, other))
    return torch.cosine_similarity(flat, other_flat)


def _interval(values: Float[Tensor, " model"]) -> dict[str, Any]:
    """The models' values, their mean, and its 95 % interval over models."""
    models = values.double().numpy()
    return {**asdict(mean_interval(models)), "models": models.tolist()}
