"""How well what is known of prompts tells what their students learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import steerlens as sl
from steerlens.replication.lab.prompts import Examined, PromptKind

PREDICTORS = {
    "steerability": "steerability (clean peak)",
    "kl_explained": "kl_explained, fitted vector",
    "numbers": "nats that the prompt changes in numbers",
    "harmlessness": "minus damage, in units of the prompt's effect",
    "expected": "verdict of analyze_prompt",
}
"""What is known of a prompt before any student is trained."""

MAJORITY = 0.5
"""A persona whose rate is at least this takes over."""


@dataclass(frozen=True)
class Outcome:
    """What the students of a prompt learned: log odds of its trait over the control's students, and whether it passed on."""

    kind: PromptKind
    trait: str
    known: Examined
    rate: float
    mass: float
    transfer: float
    passed_on: bool


@dataclass(frozen=True)
class Prediction:
    """How well one predictor tells which prompts pass on, and which personas take over half of all answers."""

    all_prompts: sl.Interval
    takes_over: sl.Interval
    pearson: sl.Interval
    spearman: sl.Interval


def predict(outcomes: list[Outcome], key: str) -> Prediction:
    """How well one thing that was known beforehand tells what was learned; intervals are over prompts."""

    def column(of: list[Outcome], value: Callable[[Outcome], Any]) -> np.ndarray:
        return np.array([float(value(one)) for one in of])

    def ranks(one: np.ndarray, other: np.ndarray) -> float:
        return sl.correlation(one, other, ranks=True)

    personas = [one for one in outcomes if one.kind == "persona"]
    scores, own = (column(part, lambda one: getattr(one.known, key)) for part in (outcomes, personas))
    passed_on, half = column(outcomes, lambda one: one.passed_on), column(personas, lambda one: one.rate >= MAJORITY)
    transfer = column(personas, lambda one: one.transfer)
    return Prediction(
        sl.bootstrap_interval(sl.concordance, scores, passed_on),
        sl.bootstrap_interval(sl.concordance, own, half),
        sl.bootstrap_interval(sl.correlation, own, transfer),
        sl.bootstrap_interval(ranks, own, transfer),
    )


def calibrate(outcomes: list[Outcome], label: Callable[[Outcome], str]) -> float:
    """Brier score of how often prompts of other traits with the same label passed on (Laplace's rule)."""
    labels, traits = (np.array([of(one) for one in outcomes]) for of in (label, lambda one: one.trait))
    happened = np.array([one.passed_on for one in outcomes])
    others = (labels[:, None] == labels) & (traits[:, None] != traits)
    return sl.brier((1 + (others & happened).sum(1)) / (2 + others.sum(1)), happened)
