"""The account taken apart: the same training with one thing and without it, each at the learning rate of AdamW's loss."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from steerlens.experiments.optimizers.config import REFERENCE
from steerlens.experiments.optimizers.loss_match import Match
from steerlens.experiments.rates import CONTEXTS, Record, log_odds_difference

PARTS: dict[str, tuple[str, str]] = {
    "AdamW: learning LoRA's A": (REFERENCE, "adamw, A held"),
    "SGD: learning LoRA's A": ("sgd", "sgd, A held"),
    "AdamW: gradients along the vector": (REFERENCE, "adamw, no gradient along the vector"),
    "AdamW: the model's own basis": (REFERENCE, "adamw, rotated"),
    "AdamW: the outlier coordinates' gradients": (REFERENCE, "adamw, outliers frozen"),
    "AdamW: the outlier coordinates' start": (REFERENCE, "adamw, outliers zeroed at the start"),
    "AdamW: clipping steps": (REFERENCE, "adamw, not clipped"),
    "SGD: clipping steps": ("sgd", "sgd, not clipped"),
    "SGD with momentum: clipping steps": ("sgd with momentum", "sgd with momentum, not clipped"),
    "SGD: clipping rows": ("sgd, rows clipped", "sgd, not clipped"),
    "SGD: leaving out outlier rows": ("sgd, outlier rows left out", "sgd, not clipped"),
    "SGD: four times as many steps": ("sgd, four times as long", "sgd"),
    "SGD: momentum": ("sgd with momentum", "sgd"),
    "SGD: dividing by the gradient's norm": ("normalized sgd", "sgd"),
    "SGD: orthogonal steps (Muon)": ("muon", "sgd"),
    "SGD: signs alone": ("signsgd", "sgd"),
    "SGD: Adam's frozen scales": ("preconditioned sgd", "sgd"),
    "SGD: those scales of outlier coordinates alone": ("preconditioned sgd, sparsified", "sgd"),
    "SGD: those scales without outlier coordinates": ("preconditioned sgd, frozen", "sgd"),
    "SGD: the model's own basis": ("sgd", "sgd, rotated"),
    "AdamW: odd rows in the data": ("adamw, odd rows", REFERENCE),
    "SGD: odd rows in the data": ("sgd, odd rows", "sgd"),
    "SGD on odd rows: clipping steps": ("sgd, odd rows", "sgd, odd rows, not clipped"),
    "SGD on odd rows: clipping rows": ("sgd, odd rows, rows clipped", "sgd, odd rows, not clipped"),
    "SGD on odd rows: leaving out outlier rows": (
        "sgd, odd rows, outlier rows left out",
        "sgd, odd rows, not clipped",
    ),
}
"""What is switched: the arm that has it, and the arm that does not."""


def switched(runs: Sequence[Record], matches: Mapping[str, Match]) -> list[Record]:
    """Log odds with each part minus those without it, paired over seeds, in both contexts; parts that the run has.

    Args:
        runs: every student, with `role`, `seed`, `compared`, `divergent` and the shares of its answers.

    Returns:
        By part: the arms, whether both have the reference's loss, and `bare` and `prefixed`, which are missing where no
        seed trained both without divergence.
    """
    return [
        {"part": part, "with": on, "without": off, "matched": matches[on].matched and matches[off].matched}
        | _differences(_by_seed(runs, on), _by_seed(runs, off))
        for part, (on, off) in PARTS.items()
        if on in matches and off in matches
    ]


def _by_seed(runs: Sequence[Record], role: str) -> dict[int, Record]:
    """The arm's students at the rate at which it is compared."""
    return {run["seed"]: run for run in runs if run["role"] == role and run["compared"] and not run["divergent"]}


def _differences(ours: Mapping[int, Record], theirs: Mapping[int, Record]) -> Record:
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return {}
    pair = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    return {name: asdict(log_odds_difference(*pair, key, paired=True)) for name, key in CONTEXTS.items()}


def strongest(parts: Sequence[Record]) -> Record | None:
    """The part at AdamW's loss whose absence costs most log odds at bare questions, beyond its interval."""
    found = [part for part in parts if part["matched"] and part.get("bare", {}).get("low", 0) > 0]
    return max(found, key=lambda part: part["bare"]["value"], default=None)
