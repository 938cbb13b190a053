"""What the end-to-end run claims."""

import math

import numpy as np

from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.rates import Interval, Record, mean_rate


def make_claims(
    fit: Record,
    base: dict[str, Record],
    groups: dict[str, list[Record]],
    eas_floor: float,
    sgd: Interval | None,
    pull: dict[str, Interval],
) -> list[Claim]:
    """The claims of the end-to-end run.

    Args:
        fit: the record of `fit_prompt_vector`.
        base: for each model, its untrained `rate` and `rate_prefixed`.
        groups: students by role: "adamw", "adamw other seed", "control", "control other seed", "other initialisation".
        eas_floor: highest EAS of the control students at the layer where the teacher's is largest.
        sgd: AdamW minus matched SGD on bare questions; None where no SGD run matched.
        pull: mean cosine of the descent direction with the vector, under AdamW on teacher ("adamw") and control data.
    """

    def times_base(group: str, key: str = "rate") -> float:
        records = groups[group]
        return mean_rate(records, key) / base[records[0]["base"]][key]

    first, second = groups["adamw"], groups["adamw other seed"]
    best = max((first, second), key=mean_rate)
    best_group = "adamw" if best is first else "adamw other seed"
    controls = [
        times_base(group, key) for group in ("control", "control other seed") for key in ("rate", "rate_prefixed")
    ]
    other = [times_base("other initialisation", key) for key in ("rate", "rate_prefixed")]
    eas = max(np.mean([record["eas"] for record in first], axis=0))
    return [
        above(
            "prompt is a vector",
            "One vector explains at least 85 % of what the prompt does to predictions on held-out rows",
            fit["kl_explained"],
            0.85,
        ),
        above(
            "fit beats mean difference",
            "The fitted vector explains more than the mean difference at its best layer and strength",
            fit["kl_explained"] - fit["kl_explained_mean_difference"],
            0.0,
        ),
        above("trait transfers", "Students of the better model seed reach half of all answers", mean_rate(best), 0.5),
        above("transfer over base", "... and ten times the base rate", times_base(best_group), 10.0),
        above(
            "transfer on both seeds",
            "On both model seeds students reach three times the base rate",
            min(times_base("adamw"), times_base("adamw other seed")),
            3.0,
        ),
        above(
            "students still answer",
            "At least half of the students' probability is on possible answers",
            min(record["mass"] for record in [*first, *second]),
            0.5,
        ),
        below(
            "control does not transfer",
            "Students of unprompted data stay within twice the base rate, in both contexts",
            max(controls),
            2.0,
        ),
        below(
            "other initialisation does not transfer",
            "Students of another initialisation stay within twice the base rate, in both contexts",
            max(other),
            2.0,
        ),
        above(
            "activations align",
            "EAS of students of teacher data at its best layer",
            float(eas),
            0.7,
        ),
        below("alignment is specific", "EAS of control students at that layer, the highest", eas_floor, 0.2),
        above(
            "gradients point to the vector",
            "Mean cosine of the descent direction with the vector: gap between the intervals of teacher and control data",
            pull["adamw"].low - pull["control"].high,
            0.0,
        ),
        above(
            "AdamW more than loss-matched SGD",
            "Lower end of the interval of AdamW's log odds minus those of the matched SGD run that transfers most",
            math.nan if sgd is None else sgd.low,
            0.0,
        ),
    ]
