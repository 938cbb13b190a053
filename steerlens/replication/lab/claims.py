"""Statements with thresholds that stand in the code."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A statement with its measured value, and whether that is on the right side of the threshold.

    The statement stands in the experiment's prose.
    """

    name: str
    measured: float
    threshold: float
    holds: bool
    statement: str = ""

    @property
    def verdict(self) -> str:
        """In words. A run may have had nothing to measure it on."""
        if math.isnan(self.measured):
            return "not measured"
        return "holds" if self.holds else "does not hold"


def above(name: str, measured: float, threshold: float) -> Claim:
    """Holds where the measured value reaches the threshold; not-a-number never does."""
    return Claim(name, float(measured), threshold, bool(measured >= threshold))


def below(name: str, measured: float, threshold: float) -> Claim:
    """Holds where the measured value is at most the threshold; not-a-number never is."""
    return Claim(name, float(measured), threshold, bool(measured <= threshold))


def listed(claims: Mapping[str, Claim]) -> str:
    """A table in plain text, one line for each claim by the name that is given."""
    width = max(map(len, claims), default=0)
    lines = [
        f"{name:{width}}  {claim.measured:8.3f}  {claim.threshold:9.3f}  {claim.verdict}"
        for name, claim in claims.items()
    ]
    return "\n".join([f"{'claim':{width}}  measured  threshold", *lines])


def tally(claims: Sequence[Claim]) -> str:
    """How many hold, in a sentence."""
    missing = sum(math.isnan(claim.measured) for claim in claims)
    rest = f"; {missing} could not be measured" if missing else ""
    return f"{sum(claim.holds for claim in claims)} of {len(claims)} claims hold{rest}."
