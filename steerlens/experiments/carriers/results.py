"""From what the stages left on disk to claims and results.json of the experiment on carriers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from steerlens.experiments.carriers.config import NUMBER_LISTS, CarriersConfig
from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.rates import Record, log_odds_difference, mean_rate

PROMPTED, CONTROL = "prompted: ", "control: "
HARDLY = 0.01
"""A prompt that shows by fewer nats a token than this does not show."""


def summarise(
    config: CarriersConfig, base: Record, writers: dict[str, Record], shown: Record, students: Sequence[Record]
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    carriers = {
        name: {**shown.get(name, {}), "kept_share": writers[PROMPTED + name]["kept_share"]} | _learned(name, students)
        for name in (NUMBER_LISTS, *config.carriers)
    }
    measures = {
        "trait": config.trait,
        "model": config.model,
        "seeds": list(config.student_seeds),
        "n_rows": config.n_rows,
        "base": base,
        "writers": writers,
        "carriers": carriers,
    }
    return make_claims(carriers, base), measures


def _learned(name: str, students: Sequence[Record]) -> Record:
    """Students of the prompted teacher next to those of the unprompted one; nothing where a carrier has too few rows."""
    prompted, control = (
        [record for record in students if record["role"] == kind + name] for kind in (PROMPTED, CONTROL)
    )
    if not prompted or not control:
        return {"transfer": None}
    columns = ("rate", "rate_prefixed", "mass", "mass_prefixed")
    return {
        **{key: mean_rate(prompted, key) for key in columns},
        "control": {key: mean_rate(control, key) for key in columns},
        "transfer": asdict(log_odds_difference(prompted, control, paired=True)),
        "transfer_prefixed": asdict(log_odds_difference(prompted, control, "shares_prefixed", paired=True)),
    }


def make_claims(carriers: dict[str, Record], base: Record) -> list[Claim]:
    """The claims, with thresholds set beforehand."""
    taught = {name: one for name, one in carriers.items() if one["transfer"] is not None}
    others = {name: one for name, one in taught.items() if name != NUMBER_LISTS}
    hidden = [one for one in others.values() if one["nats"] < HARDLY]
    nan = float("nan")
    return [
        above(
            "number lists carry",
            "Log odds in students of the prompted teacher minus those of the unprompted one, lower end of the interval",
            taught[NUMBER_LISTS]["transfer"]["low"],
            0.0,
        ),
        above(
            "something else carries",
            "The same for the best of the other carriers",
            max((one["transfer"]["low"] for one in others.values()), default=nan),
            0.0,
        ),
        below(
            "what does not show does not carry",
            f"Log odds, where the prompt changes less than {HARDLY} nats a token of the rows, the largest",
            max((one["transfer"]["value"] for one in hidden), default=nan),
            0.5,
        ),
        below(
            "control does not transfer",
            "Students of unprompted rows, rate over base, the largest of all carriers",
            max(one["control"]["rate"] for one in taught.values()) / base["rate"],
            2.0,
        ),
    ]
