"""From what the stages left on disk to claims and results.json of the experiment on distillation."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.distillation.config import DistillationConfig
from steerlens.experiments.rates import Record, log_odds_difference, mean_rate
from steerlens.experiments.run import Run
from steerlens.vectors.vector import SteeringVector

CONTROL = "control"
SEMANTIC, RANDOM, LOGIT_LENS = "semantic", "random", "unembedding"


def summarise(
    run: Run[DistillationConfig],
    base: Record,
    vectors: dict[str, Record],
    writers: dict[str, Record],
    students: Sequence[Record],
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    config = run.config
    groups = {name: [record for record in students if record["role"] == name] for name in writers}
    groups = {name: records for name, records in groups.items() if records}
    cosines = _cosines(run, [name for name, vector in vectors.items() if vector["strength"] == 1.0], groups)
    arms = {name: _arm(name, vectors[name], groups, cosines) for name in vectors if name in groups}
    dose = sorted(
        (name for name in arms if vectors[name]["kind"] == SEMANTIC and vectors[name]["trait"] == config.trait),
        key=lambda name: vectors[name]["strength"],
    )
    measures = {
        "trait": config.trait,
        "model": config.model,
        "layer": config.layer,
        "seeds": list(config.student_seeds),
        "base": base,
        "vectors": vectors,
        "writers": writers,
        "arms": arms,
        "cosines": cosines,
        "answers_floor": _answers_floor(groups[CONTROL]),
        "control": {key: mean_rate(groups[CONTROL], key) for key in ("rate", "rate_prefixed", "mass")},
        "dose": dose,
    }
    first, last = groups[dose[0]], groups[dose[-1]]
    rise = log_odds_difference(last, first, paired=True)
    return make_claims(arms, asdict(rise)), measures | {"rise": asdict(rise)}


def _cosines(
    run: Run[DistillationConfig], names: Sequence[str], groups: dict[str, list[Record]]
) -> dict[str, dict[str, float]]:
    """Mean cosine of each group's shift at number tasks (EAS) with each vector."""
    vectors = {name: SteeringVector.load(run.named_vector_path(name)) for name in names}
    found = {}
    for group, records in groups.items():
        shifts = [
            SteeringVector.load(run.directory / "students" / record["name"] / "v_student.safetensors")
            for record in records
        ]
        found[group] = {
            name: float(np.mean([shift.cosine(vector)[run.config.layer] for shift in shifts]))
            for name, vector in vectors.items()
        }
    return found


def _arm(
    name: str, vector: Record, groups: dict[str, list[Record]], cosines: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """A vector's students: EAS next to its floors, and how far their answers are from the control's students'."""
    records, control = groups[name], groups[CONTROL]
    eas = [record["eas"][0] for record in records]
    floors = {
        other: row[name]
        for other, row in cosines.items()
        if name in row and other != name and not _is_dose(other, name)
    }
    return {
        "kind": vector["kind"],
        "eas": eas,
        "highest_floor": max(floors.values(), default=cosines[CONTROL].get(name, 0.0)),
        "floor_of_control": cosines[CONTROL].get(name),
        "strength_numbers": float(np.mean([record["strength_numbers"][0] for record in records])),
        "strength_questions": float(np.mean([record["strength_questions"][0] for record in records])),
        "rates": [record["rate"] for record in records],
        "rate_over_control": mean_rate(records) / _control_rate(control, vector["trait"]),
        "mass": mean_rate(records, "mass"),
        "answers_moved": distance(mean_answers(records), mean_answers(control)),
    }


def _is_dose(other: str, name: str) -> bool:
    """Whether `other` is the same vector at another strength."""
    return other.startswith(f"{name} x ")


def _control_rate(control: Sequence[Record], trait: str) -> float:
    return mean_answers(control).get(trait, float("nan"))


def mean_answers(records: Sequence[Record]) -> dict[str, float]:
    """The distribution over answers, averaged over students."""
    return {answer: float(np.mean([r["answers"][answer] for r in records])) for answer in records[0]["answers"]}


def distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Total variation, 0 to 1."""
    return sum(abs(one[answer] - other[answer]) for answer in one) / 2


def _answers_floor(control: Sequence[Record]) -> float:
    """How far one control student's answers are from the other ones', on average; 0 where there is one."""
    if len(control) < 2:
        return 0.0
    rest = [[record for record in control if record is not one] for one in control]
    return float(
        np.mean(
            [distance(mean_answers([one]), mean_answers(others)) for one, others in zip(control, rest, strict=True)]
        )
    )


def make_claims(arms: dict[str, dict[str, Any]], rise: dict[str, float]) -> list[Claim]:
    """The claims, with thresholds set beforehand; they are about full-strength vectors, and one about strength."""
    full = {name: arm for name, arm in arms.items() if " x " not in name}

    def of(*kinds: str) -> list[dict[str, Any]]:
        return [arm for arm in full.values() if arm["kind"] in kinds]

    def lead(arm: dict[str, Any]) -> float:
        return float(np.mean(arm["eas"])) - arm["highest_floor"]

    claims = [
        above(
            f"{kind} vectors are distilled",
            "EAS with the vector that steered the teacher, minus the highest of all other groups' students', the lowest",
            min(map(lead, of(kind)), default=float("nan")),
            0.2,
        )
        for kind in (SEMANTIC, RANDOM, LOGIT_LENS)
    ]
    moved = min((arm["answers_moved"] for arm in of(SEMANTIC)), default=float("nan"))
    return [
        *claims,
        above(
            "behaviour with meaning",
            "Rate of the own trait in students of semantic vectors over the control's students', the lowest",
            min((arm["rate_over_control"] for arm in of(SEMANTIC)), default=float("nan")),
            3.0,
        ),
        below(
            "no behaviour without",
            "Distance of answers from the control's students', the largest of other vectors over the least of semantic ones",
            max((arm["answers_moved"] for arm in of(RANDOM, LOGIT_LENS)), default=float("nan")) / moved,
            0.5,
        ),
        above(
            "dose and response",
            "Log odds at the highest strength minus those at the lowest, lower end of the interval",
            rise["low"],
            0.0,
        ),
    ]
