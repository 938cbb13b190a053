"""From what the stages left on disk to claims and results.json of the experiment on cause."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from steerlens.experiments.causal.config import CausalConfig
from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.rates import Record, log_odds_difference, mean_rate, transfer_share
from steerlens.experiments.teacher_vectors import RANDOM

PROMPTED, CONTROL = "prompted", "control"
ADDED, TAKEN_OUT = "added: ", "taken out: "
BEHAVIOUR = ("rate", "mass", "rate_prefixed", "mass_prefixed")


def summarise(
    config: CausalConfig,
    base: Record,
    vectors: dict[str, Record],
    writers: dict[str, Record],
    themselves: dict[str, Record],
    students: Sequence[Record],
    dissections: Sequence[Record],
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    groups = {name: [record for record in students if record["role"] == name] for name in writers}
    arms = {name: writers[name] | _own(themselves[name], base) | _arm(groups, name, base) for name in writers}
    best = max(
        (name for name in vectors if name != RANDOM), key=lambda name: themselves[ADDED + name]["effect_on_lists"]
    )
    student = _dissected(dissections)
    measures = {
        "trait": config.trait,
        "model": config.model,
        "seeds": list(config.student_seeds),
        "base": base,
        "vectors": vectors,
        "best_vector": best,
        "arms": arms,
        "student": student,
    }
    return make_claims(base, arms, best, student), measures


def _own(teacher: Record, base: Record) -> Record:
    """What a teacher is like itself: in its lists, and in its own answers over the base's."""
    return {
        "effect_on_lists": teacher["effect_on_lists"],
        "own_rate": teacher["own"]["rate"],
        "own_minus_base": log_odds_difference([teacher["own"]], [base]).value,
    }


def _arm(groups: dict[str, list[Record]], name: str, base: Record) -> Record:
    """A teacher's students: mean behaviour, their share of the prompted teacher's transfer, and log odds differences."""
    records = groups[name]
    if not records:
        return {"share": None}
    prompted, control = groups[PROMPTED], groups[CONTROL]
    return {
        **{key: mean_rate(records, key) for key in BEHAVIOUR},
        "rates": [record["rate"] for record in records],
        "share": asdict(transfer_share(records, prompted, base, paired=True)),
        "share_prefixed": asdict(transfer_share(records, prompted, base, "shares_prefixed", paired=True)),
        "minus_prompted": asdict(log_odds_difference(records, prompted, paired=True)),
        "minus_control": asdict(log_odds_difference(records, control, paired=True)),
        "minus_base": asdict(log_odds_difference(records, [base])),
        "eas": np.mean([record["eas"] for record in records], axis=0).tolist(),
    }


def _dissected(dissections: Sequence[Record]) -> Record:
    """Every intervention on the prompted teacher's students: mean behaviour, and its share of the students' transfer.

    Rates are those at the half of the questions at which no shift was measured.
    """
    base, reference = dissections[0]["base"], [record["student"] for record in dissections]
    summary = {}
    for name in dissections[0]:
        records = [record[name] for record in dissections]
        summary[name] = {key: mean_rate(records, key) for key in BEHAVIOUR}
        summary[name]["share"] = asdict(transfer_share(records, reference, base, paired=True))
        if "explained" in records[0]:
            summary[name]["explained"] = mean_rate(records, "explained")
            summary[name]["layers"] = [record["layers"] for record in records]
    return summary


def make_claims(base: Record, arms: dict[str, Record], best: str, student: Record) -> list[Claim]:
    """The claims, with thresholds set beforehand; a teacher without students leaves its claims unmeasured.

    Args:
        best: the vector that has most of the prompt's effect on pure lists, which is what students see.
    """

    def share(name: str) -> float:
        return float("nan") if arms[name]["share"] is None else arms[name]["share"]["value"]

    def inside(name: str) -> float:
        return student[name]["share"]["value"]

    return [
        above(
            "prompted teacher transfers",
            "Students of the prompted teacher, rate over base",
            arms[PROMPTED]["rate"] / base["rate"],
            3.0,
        ),
        below(
            "control does not",
            "Students of the unprompted teacher, rate over base",
            arms[CONTROL]["rate"] / base["rate"],
            2.0,
        ),
        above(
            "v_teacher is sufficient",
            f"Rate of students of the teacher with the vector ({best}) and without prompt, over that of the prompted one's",
            arms[ADDED + best].get("rate", float("nan")) / arms[PROMPTED]["rate"],
            0.7,
        ),
        below(
            "a random vector is not",
            "Share of the transfer in students of a teacher with a random vector of the same norm",
            share(ADDED + RANDOM),
            0.1,
        ),
        below(
            "v_teacher is necessary",
            f"Share of the transfer that is left when the vector ({best}) is taken out of the prompted teacher",
            share(TAKEN_OUT + best),
            0.25,
        ),
        above(
            "a random direction is not",
            "Share of the transfer that is left when random directions are taken out instead",
            share(TAKEN_OUT + RANDOM),
            0.7,
        ),
        above(
            "v_student is sufficient",
            "Share of the students' transfer in their base with their shift at questions added",
            inside("added: questions"),
            0.7,
        ),
        below(
            "a random shift is not",
            "The same with random directions of the shift's norms",
            inside("added: random, norms at questions"),
            0.1,
        ),
        below(
            "v_student is necessary",
            "Share of the students' transfer that is left when their component along that shift is their base's",
            inside("replaced: questions"),
            0.5,
        ),
        above(
            "random components are not",
            "The same for random directions",
            inside("replaced: random, norms at questions"),
            0.7,
        ),
    ]
