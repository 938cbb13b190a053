"""Where students moved: the shift of every persona's students next to the vectors of all personas (EAS, and its floors)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steerlens.vectors.vector import SteeringVector


def activation_similarities(
    shifts: Mapping[str, Sequence[SteeringVector]], vectors: Mapping[str, SteeringVector], control: str
) -> dict[str, Any]:
    """EAS of the students of each persona, and of the control, with each persona's vector: means over seeds.

    At the layer at which students have most of their own persona's vector. Reference: arXiv 2606.00995, figure 2.

    Args:
        shifts: what training added to the residual stream, for every student of each of these teachers.
        vectors: of the personas that have students, by name.
        control: the unprompted teacher's name.

    Returns:
        `layer`; `eas` by teacher and vector; `lowest` and `median` EAS with the own vector, the `highest_other` one with
        another persona's, the control's `highest_control`, and in how many personas the own vector `is_highest`.
    """
    names, taught = list(vectors), [*vectors, control]
    layers = next(iter(vectors.values())).layers
    eas = np.array(
        [
            [
                np.mean([list(shift.cosine(vectors[name]).values()) for shift in shifts[teacher]], axis=0)
                for name in names
            ]
            for teacher in taught
        ]
    )  # [teacher vector layer]
    best = int(np.einsum("iil->l", eas[:-1]).argmax())
    table, floor = eas[:-1, :, best], eas[-1, :, best]
    own, others = table.diagonal(), np.where(np.eye(len(names), dtype=bool), -np.inf, table).max(1)
    return {
        "layer": layers[best],
        "eas": {
            teacher: dict(zip(names, row, strict=True))
            for teacher, row in zip(taught, eas[..., best].tolist(), strict=True)
        },
        "lowest": float(own.min()),
        "median": float(np.median(own)),
        "highest_other": float(others.max()),
        "highest_control": float(floor.max()),
        "is_highest": int((own > others).sum()),
    }
