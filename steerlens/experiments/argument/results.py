"""From what the stages left on disk to results.json: groups, comparisons, floors, claims."""

from dataclasses import asdict
from typing import Any

import numpy as np

from steerlens.experiments.argument.claims import make_claims
from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.claims import Claim
from steerlens.experiments.rates import Interval, Record, log_odds_difference, matched, mean_interval, mean_rate
from steerlens.experiments.run import Run
from steerlens.gradients.trace import GradientTrace
from steerlens.vectors.vector import SteeringVector, mean_centred

CURVE_KEYS = ("answers", "shares", "shares_prefixed", "eas_curve", "config")
"""Fields of a student's record that stay in its own file."""


def summarise(
    run: Run[ArgumentConfig], fit: Record, base: dict[str, Record], counts: dict[str, Record], records: list[Record]
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    config, groups = run.config, group_records(run.config, records)
    adamw, control = groups["adamw"], groups["control"]
    mean_eas = np.mean([record["eas"] for record in adamw], axis=0)
    layer = int(mean_eas.argmax())
    sgd = {name: _compare(groups, f"sgd {name}", config.loss_tolerance) for name in ("clipped", "unclipped")}
    best = {name: pair["bare"] for name, pair in sgd.items() if pair is not None}
    hardest = min(best.values(), key=lambda difference: difference["value"], default=None)
    floor = max(record["eas"][layer] for record in control)
    pull = {name: _mean_cosine(run, groups[name], layer) for name in ("adamw", "control")}
    claims = make_claims(
        fit,
        base,
        groups,
        floor,
        None if hardest is None else Interval(**hardest),
        pull,
    )
    measures = {
        "trait": config.trait,
        "seeds": list(config.student_seeds),
        "fit": fit,
        "base": base,
        "samples": counts,
        "students": [
            {key: value for key, value in record.items() if key not in CURVE_KEYS}
            | {"path": f"students/{record['name']}"}
            for record in records
        ],
        "eas": {"layer": layer, "teacher": mean_eas.tolist(), "floors": _floors(run, adamw, control, layer)}
        | {"centred": _centred(run, adamw, layer)},
        "gradients": {"layer": layer, "mean_cosine": {name: asdict(value) for name, value in pull.items()}},
        "sgd": sgd,
    }
    return claims, measures


def group_records(config: ArgumentConfig, records: list[Record]) -> dict[str, list[Record]]:
    """Records by the part that they play in the argument; curves by rising learning rate."""

    def main(role: str, base: str) -> list[Record]:
        settings = (role, base, config.train.optimizer, config.train.learning_rate)
        return [r for r in records if (r["role"], r["base"], r["optimizer"], r["learning_rate"]) == settings]

    def curve(optimizer: str, clipped: bool) -> list[Record]:
        on_curve = [
            r
            for r in records
            if (r["role"], r["base"], r["optimizer"]) == ("teacher data", config.model, optimizer)
            and (r["clip_norm"] is not None) == clipped
        ]
        return sorted(on_curve, key=lambda r: (r["learning_rate"], r["seed"]))

    return {
        "adamw": main("teacher data", config.model),
        "adamw other seed": main("teacher data", config.other_model),
        "control": main("control data", config.model),
        "control other seed": main("control data", config.other_model),
        "other initialisation": main("other initialisation", config.other_model),
        "adamw curve": curve("adamw", clipped=True),
        "sgd clipped": curve("sgd", clipped=True),
        "sgd unclipped": curve("sgd", clipped=False),
    }


def by_learning_rate(records: list[Record]) -> dict[float, list[Record]]:
    """All seeds of each learning rate, by rising rate."""
    rates = sorted({record["learning_rate"] for record in records})
    return {rate: [record for record in records if record["learning_rate"] == rate] for rate in rates}


def _compare(groups: dict[str, list[Record]], name: str, tolerance: float) -> dict[str, Any] | None:
    """AdamW against that SGD learning rate which, at matched loss, transfers most: the hardest comparison."""
    candidates = matched(by_learning_rate(groups[name]), groups["adamw"], tolerance)
    if not candidates:
        return None
    rate, best = max(candidates.items(), key=lambda item: mean_rate(item[1]))
    return {
        "learning_rate": rate,
        "students": [record["name"] for record in best],
        "rate": mean_rate(best),
        "rate_prefixed": mean_rate(best, "rate_prefixed"),
        "heldout_loss": mean_rate(best, "heldout_loss"),
        "bare": asdict(log_odds_difference(groups["adamw"], best, paired=True)),
        "prefixed": asdict(log_odds_difference(groups["adamw"], best, "shares_prefixed", paired=True)),
    }


def _floors(run: Run[ArgumentConfig], adamw: list[Record], control: list[Record], layer: int) -> dict[str, float]:
    """What EAS would be without the teacher's trait in the data, in three ways."""
    shifts = [SteeringVector.load(run.directory / "students" / r["name"] / "v_student.safetensors") for r in adamw]
    others = [SteeringVector.load(path) for path in run.other_vectors]
    cosines = [shift.cosine(other)[layer] for shift in shifts for other in others]
    d_model = shifts[0].directions.shape[1]
    return {
        "control data": max(record["eas"][layer] for record in control),
        "other traits, mean": float(np.mean(cosines)),
        "other traits, largest": float(np.max(cosines)),
        "random direction, 97.5 %": 1.96 / d_model**0.5,
    }


def _centred(run: Run[ArgumentConfig], adamw: list[Record], layer: int) -> dict[str, float]:
    """EAS with what is particular to each trait: their vectors without the mean over them all (appendix F.2)."""
    shifts = [SteeringVector.load(run.directory / "students" / r["name"] / "v_student.safetensors") for r in adamw]
    others = {path.stem: SteeringVector.load(path) for path in run.other_vectors}
    own, *rest = mean_centred({"own": SteeringVector.load(run.vector_path(run.config.model))} | others).values()
    return {
        "own trait": float(np.mean([shift.cosine(own)[layer] for shift in shifts])),
        "other traits, largest": float(max(shift.cosine(other)[layer] for shift in shifts for other in rest)),
    }


def _mean_cosine(run: Run[ArgumentConfig], records: list[Record], layer: int) -> Interval:
    """Mean over rows and steps of the cosine between descent direction and vector; interval over students."""
    traces = [GradientTrace.load(run.trace_path(record["name"])) for record in records]
    return mean_interval(np.array([float(trace.cosine[:, :, trace.layers.index(layer)].nanmean()) for trace in traces]))
