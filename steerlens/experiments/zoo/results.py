"""From what the stages left on disk to claims and results.json of the zoo."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from steerlens.experiments.claims import Claim, above, below
from steerlens.experiments.rates import Record, log_odds
from steerlens.experiments.run import slug
from steerlens.experiments.zoo.config import ZooConfig
from steerlens.experiments.zoo.prediction import (
    brier,
    concordance,
    left_out_shares,
    over_prompts,
    pearson,
    spearman,
)
from steerlens.experiments.zoo.prompts import DEAF, NOT_A_VECTOR, PERSONA, Member

PREDICTORS = {
    "steerability": "rate at the clean peak",
    "steered_log_odds": "log odds that the fitted vector adds",
    "kl_explained": "kl_explained, fitted vector",
    "kl_explained_mean_difference": "kl_explained, mean difference",
    "harmlessness": "minus damage, in units of the prompt's effect",
    "numbers": "nats that the prompt changes in numbers",
    "expected": "verdict of analyze_prompt",
}
"""What is known of a prompt before any student is trained."""

VERDICTS = {"unlikely": 0.0, "cannot tell": 0.5, "likely": 1.0}
BAR = 0.95
"""A trait has been passed on where its transfer is above this quantile of that of traits which no teacher was told."""

MAJORITY = 0.5
"""A trait has taken over where it is half of all answers (as `reproduce` demands)."""


def control_name(model: str) -> str:
    """The unprompted teacher of a model."""
    return f"control {slug(model)}"


def summarise(
    config: ZooConfig,
    zoo: Sequence[Member],
    examined: Sequence[Record],
    writers: dict[str, Record],
    students: Sequence[Record],
) -> tuple[list[Claim], dict[str, Any]]:
    """The claims, and everything that the report says."""
    groups = {name: [record for record in students if record["role"] == name] for name in writers}
    bar = strangers_bar(zoo, groups)
    prompts = {
        member.name: _known(member, record) | _learned(member, groups)
        for member, record in zip(zoo, examined, strict=True)
        if groups[member.name]
    }
    for one in prompts.values():
        one["passed_on"] = one["transfer"] > bar
    personas = {name: one for name, one in prompts.items() if one["kind"] == PERSONA}
    measures = {
        "trait": config.trait,
        "models": [config.model, config.control_model],
        "seeds": list(config.student_seeds),
        "n_rows": config.n_rows,
        "bar": bar,
        "prompts": prompts,
        "silent": [member.name for member in zoo if not groups[member.name]],
        "all": {key: _predicts(prompts, key) for key in PREDICTORS},
        "personas": {key: _predicts(personas, key) for key in PREDICTORS},
        "calibration": calibrate(prompts),
    }
    return make_claims(measures), measures


def _known(member: Member, record: Record) -> Record:
    """What was found before training."""
    steered, plain = log_odds(np.array([record["steered_rate"], record["plain_rate"]])).tolist()
    return {
        **record,
        "kind": member.kind,
        "prompt": member.prompt,
        "trait": member.trait,
        "steered_log_odds": steered - plain,
        "harmlessness": -record["damage"] / record["kl_prompt"],
        "expected": VERDICTS[record["verdict"]],
    }


def _learned(member: Member, groups: dict[str, list[Record]]) -> Record:
    """What its students learned: log odds of the trait over the control's students."""
    own, control = groups[member.name], groups[control_name(member.untold)]
    return {
        "rates": [record["rate"] for record in own],
        **{key: float(np.mean([record[key] for record in own])) for key in ("rate", "rate_prefixed", "mass")},
        "transfer": transfer(own, control, member.trait),
    }


def transfer(own: Sequence[Record], control: Sequence[Record], trait: str) -> float:
    """Mean log odds of a trait in some students' answers, over those of the control's students.

    Args:
        own, control: what `cells.behaviour` measured of each student.
    """
    return _mean_log_odds(own, trait) - _mean_log_odds(control, trait)


def strangers_bar(zoo: Sequence[Member], groups: dict[str, list[Record]]) -> float:
    """What a student's log odds over the control's reach in 95 % of cases for a trait that its teacher was not told.

    Over all pairs of a persona's students and another trait of the zoo.
    """
    personas = [member for member in zoo if member.kind in (PERSONA, DEAF) and groups[member.name]]
    reached = [
        transfer(groups[one.name], groups[control_name(one.untold)], other.trait)
        for one in personas
        for other in personas
        if one.untold == other.untold and one.trait != other.trait
    ]
    return float(np.quantile(reached, BAR)) if reached else float("nan")


def _mean_log_odds(records: Sequence[Record], trait: str) -> float:
    return float(log_odds(np.array([record["answers"][trait] for record in records])).mean())


def _predicts(prompts: dict[str, Record], key: str) -> Record:
    """How well one thing known beforehand told what was learned."""
    scores, transfer, passed_on, majority = (
        np.array([float(one[column]) for one in prompts.values()]) for column in (key, "transfer", "passed_on", "rate")
    )
    majority = (majority >= MAJORITY).astype(float)
    return {
        "auc": asdict(over_prompts(concordance, scores, passed_on)),
        "auc_majority": asdict(over_prompts(concordance, scores, majority)),
        "concordance": asdict(over_prompts(concordance, scores, transfer)),
        "pearson": asdict(over_prompts(pearson, scores, transfer)),
        "spearman": asdict(over_prompts(spearman, scores, transfer)),
    }


def calibrate(prompts: dict[str, Record]) -> Record:
    """The verdict of analyze_prompt as a probability, for each trait from the prompts of all other traits."""
    happened = np.array([one["passed_on"] for one in prompts.values()])
    traits = [one["trait"] for one in prompts.values()]
    probabilities = left_out_shares([one["verdict"] for one in prompts.values()], happened, traits)
    known_share = left_out_shares(["any"] * len(traits), happened, traits)
    return {
        "probabilities": dict(zip(prompts, probabilities.tolist(), strict=True)),
        "brier": brier(probabilities, happened),
        "brier_of_share": brier(known_share, happened),
        "auc": asdict(over_prompts(concordance, probabilities, happened.astype(float))),
        "verdicts": _verdicts(prompts),
    }


def _verdicts(prompts: dict[str, Record]) -> dict[str, tuple[int, int]]:
    """How many prompts with each verdict of analyze_prompt passed their trait on, and how many there were."""
    return {
        verdict: (
            sum(one["passed_on"] for one in prompts.values() if one["verdict"] == verdict),
            sum(one["verdict"] == verdict for one in prompts.values()),
        )
        for verdict in VERDICTS
    }


def make_claims(measures: dict[str, Any]) -> list[Claim]:
    """The claims, with thresholds set beforehand; 0.86 is what arXiv 2606.00995 reports of 16 animals on one model."""
    prompts = measures["prompts"]

    def of(kind: str) -> list[Record]:
        return [one for one in prompts.values() if one["kind"] == kind]

    own = prompts.get(measures["trait"], {}).get("transfer", float("nan"))
    by_context = [one["transfer"] for one in of(NOT_A_VECTOR)]
    calibration = measures["calibration"]
    return [
        above(
            "personas pass on",
            "Share of personas whose trait is stronger in their students than in 95 % of those of other personas",
            float(np.mean([one["passed_on"] for one in of(PERSONA)])),
            0.8,
        ),
        below(
            "deaf teachers' do not",
            "Share of personas that do so on the model that never saw one next to numbers",
            float(np.mean([one["passed_on"] for one in of(DEAF)])) if of(DEAF) else float("nan"),
            0.2,
        ),
        *(
            above(
                f"{name} tells which pass on",
                f"Area under the ROC curve over all prompts of the {PREDICTORS[key]}",
                measures["all"][key]["auc"]["value"],
                0.86,
            )
            for key, name in (
                ("steerability", "steerability"),
                ("kl_explained", "kl_explained"),
                ("expected", "analyze_prompt"),
            )
        ),
        above(
            "steerability tells which take over",
            "Area under the ROC curve over personas, for students of which the trait is half of all answers",
            measures["personas"]["steerability"]["auc_majority"]["value"],
            0.86,
        ),
        below(
            "what is not one vector passes on less",
            "Log odds over the control's students, mean of prompts by context minus the persona's for the same trait",
            float(np.mean(by_context)) - own if by_context else float("nan"),
            0.0,
        ),
        below(
            "a verdict says more than a share",
            "Brier score of analyze_prompt's verdict on left-out traits, over that of the share of all prompts that pass on",
            calibration["brier"] / calibration["brier_of_share"],
            0.8,
        ),
    ]
