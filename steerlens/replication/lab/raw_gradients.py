"""What the rows' gradients are like: where their mean points, and how heavy the tail of their norms is."""

from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.teachers import Rows

SIZES = (1, 4, 16, 64, 256, 1024)
"""Numbers of rows over which gradients are averaged."""


@dataclass(frozen=True)
class Pooled:
    """Cosine of the mean gradient's difference between told and control rows with the vector, by the number of rows averaged.

    `shuffled_high` is the upper end of the interval with the rows relabelled at random.
    """

    sizes: tuple[int, ...]
    observed: tuple[float, ...]
    shuffled_high: tuple[float, ...]


@dataclass(frozen=True)
class Tail:
    """How heavy the tail of the rows' gradient norms is; a Gaussian's kurtosis is 3, equal norms have a Gini of 0."""

    kurtosis: float
    gini: float
    top_share: float


def pooled_cosine(lab: Lab, told: Rows, control: Rows, layer: int) -> Pooled:
    """The untrained model's gradients at one layer, averaged over more and more rows."""
    rows, others = (sl.SampleSet.load(one.samples) for one in (told, control))
    vector = sl.SteeringVector.load(lab.mean_difference())
    found = sl.pooled_difference_cosine(lab.load(), rows, others, vector, sizes=SIZES)
    index = found.layers.index(layer)
    high = found.interval(found.shuffled)[1][:, index]
    return Pooled(found.sizes, tuple(found.observed.mean(0)[:, index].tolist()), tuple(high.tolist()))


def tail(group: compare.Students, layer: int) -> Tail:
    """Of the gradients at one layer that a group of students was trained with; means over students."""
    traces = [one.gradients for one in group]
    norms = [one.norm[:, :, one.layers.index(layer)] for one in traces]
    return Tail(*(float(np.mean([of(norm) for norm in norms])) for of in (sl.kurtosis, sl.gini, sl.top_share)))
