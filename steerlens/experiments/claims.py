"""Statements with thresholds that stand in the code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A statement with its measured value, and whether it is on the right side of the threshold."""

    name: str
    statement: str
    measured: float
    threshold: float
    holds: bool


def above(name: str, statement: str, measured: float, threshold: float) -> Claim:
    """Holds where the measured value reaches the threshold; not-a-number never does."""
    return Claim(name, statement, measured, threshold, measured >= threshold)


def below(name: str, statement: str, measured: float, threshold: float) -> Claim:
    """Holds where the measured value is at most the threshold; not-a-number never is."""
    return Claim(name, statement, measured, threshold, measured <= threshold)
