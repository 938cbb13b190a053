"""What the run claims, against thresholds that were set beforehand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]
N_RESAMPLES = 4000

CONTEXTS = {"bare": "shares", "prefixed": "shares_prefixed"}
"""Where the trait is asked for, and what a record calls each question's share there."""


@dataclass(frozen=True)
class Claim:
    """A statement with its measured value, and whether it is on the right side of the threshold."""

    name: str
    statement: str
    measured: float
    threshold: float
    holds: bool


@dataclass(frozen=True)
class Difference:
    """Log odds of the trait, one group of students minus another, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float


def above(name: str, statement: str, measured: float, threshold: float) -> Claim:
    """Holds where the measured value reaches the threshold; not-a-number never does."""
    return Claim(name, statement, measured, threshold, measured >= threshold)


def below(name: str, statement: str, measured: float, threshold: float) -> Claim:
    """Holds where the measured value is at most the threshold; not-a-number never is."""
    return Claim(name, statement, measured, threshold, measured <= threshold)


def mean_rate(records: Sequence[Record], key: str = "rate") -> float:
    """Mean over students."""
    return float(np.mean([record[key] for record in records]))


def log_odds_difference(
    one: Sequence[Record], other: Sequence[Record], key: str = "shares", *, paired: bool = False
) -> Difference:
    """Difference of mean log odds between two groups; bootstrap over students and questions together.

    Args:
        paired: the groups' students belong together in pairs, such as of one seed, and are drawn so.
    """
    ours, theirs = (np.clip([r[key] for r in group], 1e-6, 1 - 1e-6) for group in (one, other))
    ours, theirs = (np.log(shares) - np.log1p(-shares) for shares in (ours, theirs))  # [student question]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(N_RESAMPLES):
        questions = rng.integers(0, ours.shape[1], ours.shape[1])
        students = [rng.integers(0, len(group), len(group)) for group in (ours, theirs)]
        if paired:
            students[1] = students[0]
        draws.append(ours[students[0]][:, questions].mean() - theirs[students[1]][:, questions].mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(float(ours.mean() - theirs.mean()), float(low), float(high))


def rate_interval(records: Sequence[Record], key: str = "shares") -> Interval:
    """Mean rate over students, with a bootstrap over students and questions together."""
    shares, rng = np.array([record[key] for record in records]), np.random.default_rng(0)  # [student question]
    draws = [
        shares[rng.integers(0, len(shares), len(shares))][:, rng.integers(0, shares.shape[1], shares.shape[1])].mean()
        for _ in range(N_RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(shares.mean()), float(low), float(high))


def transfer_share(ours: Sequence[Record], reference: Sequence[Record], base: Record, key: str = "shares") -> Interval:
    """(mean rate of `ours` - base's rate) / (mean rate of `reference` - base's rate): the share of a transfer that is there.

    The interval is a bootstrap over students of each group and, for all three together, over questions.
    """
    one, other = (np.array([record[key] for record in group]) for group in (ours, reference))  # [student question]
    plain, rng = np.array(base[key]), np.random.default_rng(0)

    def share(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return float((a.mean() - c.mean()) / (b.mean() - c.mean()))

    draws = []
    for _ in range(N_RESAMPLES):
        questions = rng.integers(0, len(plain), len(plain))
        a, b = (group[rng.integers(0, len(group), len(group))][:, questions] for group in (one, other))
        draws.append(share(a, b, plain[questions]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(share(one, other, plain), float(low), float(high))


def matched(candidates: Sequence[Record], reference: Sequence[Record], tolerance: float) -> list[Record]:
    """The runs whose held-out loss is within `tolerance` of the reference's mean, or lower, and that still answer."""
    limit = mean_rate(reference, "heldout_loss") + tolerance
    return [record for record in candidates if record["heldout_loss"] <= limit and record["mass"] >= 0.5]


def make_claims(
    fit: Record,
    base: dict[str, Record],
    groups: dict[str, list[Record]],
    eas_floor: float,
    sgd: Difference | None,
    pull: dict[str, Difference],
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
            "Lower end of the interval of AdamW's log odds minus those of the matched SGD run that transfers most; "
            "does not hold where no SGD run matched",
            math.nan if sgd is None else sgd.low,
            0.0,
        ),
    ]
