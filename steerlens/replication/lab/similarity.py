"""Empirical activation similarity (EAS) of told and control students: what it is worth, and how it comes about."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.lab import Lab


def floors(lab: Lab, own: compare.Students, control: compare.Students, layer: int) -> sl.Floors:
    """What EAS would be without this trait in the data."""
    vectors = {name: sl.SteeringVector.load(lab.mean_difference(trait=name)) for name in lab.other_traits}
    vector = sl.SteeringVector.load(lab.mean_difference())
    shifts, control_shifts = ([one.shift for one in group] for group in (own, control))
    return sl.similarity_floors(shifts, vector, others=vectors, control=control_shifts, layer=layer)


def plot_similarity(
    groups: Mapping[str, compare.Students], layer: int, *, lines: Mapping[str, float] | None = None
) -> go.Figure:
    """EAS of traced students at one layer over training, at number tasks and at the trait's questions.

    Args:
        lines: floors, by what they are.
    """
    curves = {}
    for name, group in groups.items():
        steps = [point.step for point in group[0].curve]
        for where, words in (("at_numbers", "number tasks"), ("at_questions", "the trait's questions")):
            values = [[getattr(point, where).cosine[layer] for point in one.curve] for one in group]
            curves[f"{name}, {words}"] = steps, np.mean(values, axis=0).tolist()
    return plots.plot_curves({"EAS": curves}, x="step", lines=lines)
