"""From what the stages left on disk to claims and results.json of the experiment on capacity."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from steerlens.evaluation import STILL_ANSWERS
from steerlens.experiments.capacity.config import CapacityConfig
from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.rates import Interval, Record, log_odds_difference, mean_rate

PROMPTED, CONTROL = "prompted", "control"


def summarise(
    config: CapacityConfig,
    base: Record,
    writers: dict[str, Record],
    students: Sequence[Record],
    contexts: Sequence[Record],
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    groups: dict[str, list[Record]] = {}
    for record in students:
        groups.setdefault(record["role"], []).append(record)
    arms = {name: _arm(records, base) for name, records in groups.items()}
    grid = {
        rows: {
            str(rank): {f"{rate:g}": arms[f"rank {rank}, {rate:g}{ending}"] for rate in config.learning_rates}
            for rank in config.ranks
        }
        for rows, ending in ((str(config.n_rows), ""), (str(config.fewer_rows), ", fewer rows"))
    }
    measures = {
        "trait": config.trait,
        "model": config.model,
        "seeds": list(config.student_seeds),
        "base": base,
        "writers": writers,
        "arms": arms,
        "grid": grid,
        "shared_rate": f"{config.train.learning_rate:g}",
        "unique_rows": asdict(unique_rows(groups, *grid.values())),
        "full": {f"{rate:g}": arms[f"full fine-tuning, {rate:g}"] for rate in config.full_rates},
        "data": {name: arms[name] for name in arms if name.startswith("temperature") or name in config.filters},
        "silent": [name for name, writer in writers.items() if not writer["enough"]],
        "controls": {name: arm for name, arm in arms.items() if name.startswith(CONTROL)},
        "contexts": _contexts(contexts),
    }
    return make_claims(measures), measures


def _arm(records: Sequence[Record], base: Record) -> Record:
    return {
        **{key: mean_rate(records, key) for key in ("rate", "rate_prefixed", "mass", "heldout_loss")},
        "rates": [record["rate"] for record in records],
        "minus_base": asdict(log_odds_difference(records, [base])),
    }


def _contexts(checks: Sequence[Record]) -> Record:
    """Mean behaviour of the main students, and of their base, in every context."""
    return {
        name: {
            who: {
                key: mean_rate([check[name][who] for check in checks], key) for key in ("rate", "rate_prefixed", "mass")
            }
            for who in ("student", "base")
        }
        for name in checks[0]
    }


def best(row: dict[str, Record]) -> str | None:
    """The learning rate whose students transfer most among those that still answer; None where none do."""
    answering = {rate: arm for rate, arm in row.items() if arm["mass"] >= STILL_ANSWERS}
    return max(answering, key=lambda rate: answering[rate]["minus_base"]["value"], default=None)


def best_of(row: dict[str, Record]) -> float:
    """Log odds over base at the best learning rate; NaN where no student answers."""
    rate = best(row)
    return float("nan") if rate is None else row[rate]["minus_base"]["value"]


def unique_rows(groups: dict[str, list[Record]], many: dict[str, dict], few: dict[str, dict]) -> Interval:
    """Log odds with all rows minus those with fewer: students at each rank's best rates, paired by rank and seed."""
    pairs = [(rank, best(many[rank]), best(few[rank])) for rank in many]
    if any(None in pair for pair in pairs):
        return Interval(float("nan"), float("nan"), float("nan"))
    ours = [record for rank, rate, _ in pairs for record in groups[f"rank {rank}, {rate}"]]
    theirs = [record for rank, _, rate in pairs for record in groups[f"rank {rank}, {rate}, fewer rows"]]
    return log_odds_difference(ours, theirs, paired=True)


def spread(values: Sequence[float]) -> float:
    """Largest minus smallest."""
    return float(np.max(values) - np.min(values))


def make_claims(measures: dict[str, Any]) -> list[Claim]:
    """The claims, with thresholds set beforehand."""
    many, _ = measures["grid"].values()
    shared = measures["shared_rate"]
    at_shared = [row[shared]["minus_base"]["value"] for row in many.values()]
    tuned = [best_of(row) for row in many.values()]
    contexts, base = measures["contexts"], measures["base"]
    as_trained, *others = contexts.values()
    return [
        above(
            "every rank transfers",
            "Log odds over base at its best learning rate, the lowest of all ranks",
            float(np.min(tuned)),
            1.0,
        ),
        below(
            "rank matters through its learning rate",
            "Spread of log odds over ranks, each at its best learning rate, over that at the shared one",
            spread(tuned) / spread(at_shared) if spread(at_shared) else float("nan"),
            0.5,
        ),
        above(
            "unique rows count",
            "Log odds with all rows minus those with fewer, repeated for as many steps; all ranks at their best rates, lower "
            "end of the interval",
            measures["unique_rows"]["low"],
            0.0,
        ),
        below(
            "full fine-tuning transfers less",
            "Log odds over base at its best learning rate, minus the best LoRA's",
            best_of(measures["full"]) - float(np.max(tuned)),
            0.0,
        ),
        below(
            "control does not transfer",
            "Students of unprompted lists at the main student's learning rate, rate over base, the largest of all ranks",
            max(arm["rate"] for arm in measures["controls"].values()) / base["rate"],
            2.0,
        ),
        below(
            "another context hides the trait",
            "Students' rate under another system prompt over that in the context of their training, the largest",
            max(context["student"]["rate"] for context in others) / as_trained["student"]["rate"],
            0.5,
        ),
    ]
