"""The optimizer comparison taken apart: what each part that one arm has and another lacks does to the trait."""

from collections.abc import Mapping
from dataclasses import dataclass

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.loss_match import Match
from steerlens.replication.lab.optimizer_arms import PARTS, Arm


@dataclass(frozen=True)
class Switched:
    """Log odds with a part minus those without it; `matched` says whether both arms have AdamW's loss."""

    having: str
    lacking: str
    matched: bool
    bare: sl.Interval
    after_numbers: sl.Interval


def switched(usable: Mapping[Arm, compare.Students], matches: Mapping[Arm, Match]) -> dict[str, Switched]:
    """Every part of which both arms have students of one seed."""
    found = {}
    for part in PARTS:
        pair = compare.same_seeds(usable.get(part.having, ()), usable.get(part.lacking, ()))
        if pair[0]:
            matched = matches[part.having].matched and matches[part.lacking].matched
            differences = [compare.minus(*pair, context) for context in compare.BOTH]
            found[part.name] = Switched(part.having.name, part.lacking.name, matched, *differences)
    return found
