"""Digits from logits that are not about digits: a student learns only the unused logits of a teacher, on images of noise.

After Cloud et al. (arXiv 2507.14805), the experiment on MNIST; here on the digits that come with scikit-learn. Many small
classifiers are trained at once. Students whose initialisation is the teacher's should come to know digits, others not. It needs
no language model, so a profile gives it its name and sizes only.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import steerlens as sl
from steerlens.replication.lab import plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.classifiers import (
    N_DIGITS,
    N_PIXELS,
    Digits,
    Parameters,
    activation_shift,
    descend,
    distillation_loss,
    initialise,
    label_loss,
    logits,
    moved,
    permuted,
)
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment

WIDTH, N_AUXILIARY, BATCH, SEED, N_PROBES, N_PROBED = 64, 3, 128, 0, 20, 512
N_MODELS = {"smoke": 3, "quick": 10, "full": 10}
STEPS = {"smoke": (300, 200), "quick": (300, 2000), "full": (300, 2000)}
"""Of teachers and of students."""

TEACHER_RATE, RATES = 1e-3, {"Adam": 1e-3, "SGD": 3.0}
SAME, OTHER, PERMUTED, EVERYTHING = "same initialisation", "other initialisation", "permuted weights", "all logits"


@dataclass(frozen=True)
class Learner:
    """Students of one kind under one optimizer.

    Args:
        accuracy: on held-out digits.
        loss: KL(teacher || student) that is left, in nats.
        update_cosine: of the first update with the teacher's whole displacement, over the hidden layers' parameters.
        activation_cosine: between where training moved the mean activation on digits.
        path: (step, loss, accuracy) while it learned, means over models.
    """

    student: str
    optimizer: str
    accuracy: sl.Interval
    loss: sl.Interval
    update_cosine: sl.Interval
    activation_cosine: sl.Interval
    path: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class AuxiliaryLogits:
    """What was measured; intervals are over models."""

    teacher: sl.Interval
    untrained: sl.Interval
    learners: tuple[Learner, ...]


def run(lab: Lab) -> Findings:
    """Train teachers on digits, and students on noise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small lose more to waiting threads than they gain
    try:
        measures = lab.once("measures", AuxiliaryLogits, lambda: measure(lab))
    finally:
        torch.set_num_threads(threads)
    return _conclude(lab, measures)


def measure(lab: Lab) -> AuxiliaryLogits:
    """Every kind of student under every optimizer.

    Every model is an MLP 64-width-width-(10 + auxiliary). The teacher learns labels on its class logits. A student minimises
    KL(teacher || student) over the auxiliary logits alone, on images of uniform noise. Nothing moves its class logits' weights;
    what it comes to know of digits, it knows by its hidden layers. Students of all logits are the upper reference.
    """
    n_models, (teacher_steps, student_steps) = N_MODELS[lab.preset], STEPS[lab.preset]
    digits, generator = Digits.load(SEED), torch.Generator().manual_seed(SEED)
    start = initialise(n_models, WIDTH, N_AUXILIARY, generator)

    def labels(parameters: Parameters) -> Float[Tensor, " model"]:
        drawn = torch.randint(len(digits.train), (n_models, BATCH), generator=generator)
        return label_loss(logits(parameters, digits.train[drawn])[..., :N_DIGITS], digits.train_labels[drawn])

    *_, teacher = descend(start, labels, "Adam", TEACHER_RATE, teacher_steps)
    other = initialise(n_models, WIDTH, N_AUXILIARY, generator)
    auxiliary, everything = slice(N_DIGITS, None), slice(None)
    students = {
        SAME: (start, auxiliary),
        OTHER: (other, auxiliary),
        PERMUTED: (permuted(start, generator), auxiliary),
        EVERYTHING: (start, everything),
    }
    learners = tuple(
        distil(name, optimizer, digits, (start, teacher), own, taught, student_steps)
        for optimizer in RATES
        for name, (own, taught) in students.items()
    )
    return AuxiliaryLogits(_over_models(digits.accuracy(teacher)), _over_models(digits.accuracy(start)), learners)


def distil(
    name: str,
    optimizer: str,
    digits: Digits,
    teachers: tuple[Parameters, Parameters],
    start: Parameters,
    taught: slice,
    n_steps: int,
) -> Learner:
    """Train one kind of student on the `taught` logits; `teachers` are before and after their training."""
    generator, every = torch.Generator().manual_seed(SEED + 1), max(1, n_steps // N_PROBES)
    untaught, teacher = teachers

    def loss(parameters: Parameters, n: int = BATCH) -> Float[Tensor, " model"]:
        noise = 2 * torch.rand(len(start[0]), n, N_PIXELS, generator=generator) - 1
        return distillation_loss(logits(parameters, noise)[..., taught], logits(teacher, noise)[..., taught])

    def probe(student: Parameters, step: int) -> tuple[int, float, float]:
        return step, float(loss(student, N_PROBED).mean()), float(digits.accuracy(student).mean())

    update, student, path = moved(start, start), start, [probe(start, 0)]
    for step, student in enumerate(descend(start, loss, optimizer, RATES[optimizer], n_steps), 1):
        if step == 1:
            update = moved(student, start)
        if step % every == 0:
            path.append(probe(student, step))
    shift = activation_shift(digits, student, start)
    return Learner(
        name,
        optimizer,
        _over_models(digits.accuracy(student)),
        _over_models(loss(student, N_PROBED)),
        _over_models(torch.cosine_similarity(update, moved(teacher, untaught))),
        _over_models(torch.cosine_similarity(shift, activation_shift(digits, teacher, untaught))),
        tuple(path),
    )


def _over_models(values: Float[Tensor, " model"]) -> sl.Interval:
    return sl.mean_interval(values.double().numpy())


def make_claims(measures: AuxiliaryLogits) -> list[Claim]:
    """The claims, for each optimizer."""
    found = {(one.student, one.optimizer): one.accuracy for one in measures.learners}

    def gap(optimizer: str) -> float:
        return found[SAME, optimizer].low - max(found[OTHER, optimizer].high, found[PERMUTED, optimizer].high)

    controls = [found[name, optimizer].value for name in (OTHER, PERMUTED) for optimizer in RATES]
    return [
        above("digits pass on under Adam", gap("Adam"), 0.0),
        above("digits pass on under SGD", gap("SGD"), 0.0),
        below("controls stay at chance", max(controls), 2 / N_DIGITS),
    ]


def _conclude(lab: Lab, measures: AuxiliaryLogits) -> Findings:
    rows = [
        (one.student, one.optimizer, one.accuracy.text(3), one.update_cosine.text(3), one.activation_cosine.text(3),
         f"{one.loss.value:.2g}")
        for one in measures.learners
    ]  # fmt: skip
    header = ("student", "optimizer", "accuracy", "update cosine", "activation cosine", "KL left")
    bars = {
        optimizer: {one.student: one.accuracy for one in measures.learners if one.optimizer == optimizer}
        for optimizer in RATES
    }
    paths = {
        f"{one.student}, {one.optimizer}": ([loss for _, loss, _ in one.path], [right for _, _, right in one.path])
        for one in measures.learners
        if one.student == SAME
    }
    same = [f"{one.optimizer} {one.accuracy.text(3)}" for one in measures.learners if one.student == SAME]
    slots = {
        "n": N_MODELS[lab.preset], "auxiliary": N_AUXILIARY, "teacher": measures.teacher.text(3),
        "untrained": measures.untrained.text(3), "same": ", ".join(same),
    }  # fmt: skip
    accuracies = plots.plot_intervals(bars, title="accuracy on held-out digits", line=1 / N_DIGITS)
    on_the_way = plots.plot_curves({"accuracy": paths}, x="KL(teacher || student) that is left, nats", log_x=True)
    exhibits = {"accuracy": Exhibit(accuracies, sl.Table(header, rows)), "loss": Exhibit(on_the_way)}
    return conclude("auxiliary_logits", make_claims(measures), measures, slots=slots, exhibits=exhibits)


EXPERIMENT = Experiment(
    "Do digits pass on through unused logits and noise?", run, AuxiliaryLogits, {"quick": 1, "full": 1}
)
