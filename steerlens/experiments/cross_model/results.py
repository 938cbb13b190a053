"""From what the stages left on disk to claims and results.json of the experiment across models."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.cross_model.config import CrossModelConfig
from steerlens.experiments.rates import Record, log_odds_difference, mean_rate

SELF, OTHER, FURTHER = "model", "other initialisation", "model trained further"
SAME = {SELF, FURTHER}
"""Models of one initialisation."""


@dataclass(frozen=True)
class Pair:
    """Whose rows, prompted or not, which student learns from."""

    source: str
    student: str
    prompted: bool = True

    @property
    def name(self) -> str:
        """In words."""
        return f"{'prompted' if self.prompted else 'control'} rows of the {self.source}, student the {self.student}"


PAIRS = (
    Pair(SELF, SELF),
    Pair(OTHER, OTHER),
    Pair(SELF, OTHER),
    Pair(OTHER, SELF),
    Pair(SELF, FURTHER),
    Pair(SELF, SELF, prompted=False),
    Pair(SELF, FURTHER, prompted=False),
)


def summarise(
    config: CrossModelConfig,
    base: dict[str, Record],
    students: Sequence[Record],
    matrix: dict[str, dict[str, Record]],
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    groups = {pair.name: [record for record in students if record["role"] == pair.name] for pair in PAIRS}
    arms = {pair.name: _arm(pair, groups, base) for pair in PAIRS}
    measures = {
        "trait": config.trait,
        "models": [config.model, config.other_model],
        "seeds": list(config.student_seeds),
        "base": base,
        "arms": arms,
        "matrix": matrix,
    }
    return make_claims(arms, matrix), measures


def _arm(pair: Pair, groups: dict[str, list[Record]], base: dict[str, Record]) -> Record:
    """Students of a pair: rates, over their own base's, and log odds minus that base's."""
    records, untrained = groups[pair.name], base[pair.student]
    return {
        "rate": mean_rate(records),
        "rates": [record["rate"] for record in records],
        "rate_prefixed": mean_rate(records, "rate_prefixed"),
        "mass": mean_rate(records, "mass"),
        "over_base": mean_rate(records) / untrained["rate"],
        "over_base_prefixed": mean_rate(records, "rate_prefixed") / untrained["rate_prefixed"],
        "minus_base": asdict(log_odds_difference(records, [untrained])),
        "eas": np.mean([record["eas"] for record in records], axis=0).tolist(),
    }


def make_claims(arms: dict[str, Record], matrix: dict[str, dict[str, Record]]) -> list[Claim]:
    """The claims, with thresholds set beforehand."""

    def over_base(source: str, student: str, key: str = "over_base") -> float:
        return arms[Pair(source, student).name][key]

    related = [matrix[one][other] for one in matrix for other in matrix if one == other or {one, other} <= SAME]
    strangers = [matrix[one][other] for one in matrix for other in matrix if one != other and not {one, other} <= SAME]
    least = min(entry["value"] for entry in related)
    return [
        above("own rows transfer", "Students of their own model's rows, rate over base", over_base(SELF, SELF), 3.0),
        below(
            "other initialisation does not",
            "Students of rows of another initialisation, rate over base, the larger of both directions",
            max(over_base(SELF, OTHER), over_base(OTHER, SELF)),
            2.0,
        ),
        above(
            "trained further, it still does",
            "The model trained further as student of the rows from before, rate over its own base",
            over_base(SELF, FURTHER),
            3.0,
        ),
        below(
            "... and not from control rows",
            "The same from unprompted rows",
            arms[Pair(SELF, FURTHER, prompted=False).name]["over_base"],
            2.0,
        ),
        above(
            "vectors predict related data",
            "Loss that a vector takes off prompted rows more than off control rows, models of one initialisation, the lowest "
            "lower end of the intervals, thousandths of a nat a token",
            1000 * min(entry["low"] for entry in related),
            0.0,
        ),
        above(
            "... more than random ones",
            "Each of these, minus the largest that random vectors of the same norms reach on the same rows, the least",
            1000 * min(entry["value"] - entry["largest_of_random"] for entry in related),
            0.0,
        ),
        below(
            "vectors do not predict strangers' data",
            "The largest between different initialisations, over the least between related models",
            max(entry["value"] for entry in strangers) / least,
            0.25,
        ),
    ]
