"""From what the stages left on disk to results.json and runs.csv of the optimizer comparison."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from steerlens.experiments.optimizers.cells import NOT_A_NUMBER, is_divergent
from steerlens.experiments.optimizers.config import REFERENCE, OptimizersConfig
from steerlens.experiments.optimizers.loss_match import Match
from steerlens.experiments.optimizers.parts import switched
from steerlens.experiments.rates import CONTEXTS, Record, log_odds_difference, mean_rate, rate_interval
from steerlens.experiments.run import Run
from steerlens.files import read_json, write_text
from steerlens.gradients.outliers import gini, kurtosis, top_share
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace

COLUMNS = (
    "optimizer", "learning_rate", "clip_norm", "seed", "loss", "heldout_loss", "rate", "mass", "rate_prefixed",
    "mass_prefixed", "eas", "strength_numbers", "strength_questions", "mean_pull", "mean_cosine", "along_numbers",
    "along_questions", "kurtosis", "gini", "top_share", "divergent", "matched", "compared", "name",
)  # fmt: skip
"""Of runs.csv. Measures by layer are those of the layer with the reference's highest EAS."""


def summarise(
    run: Run[OptimizersConfig],
    base: Record,
    counts: Record,
    matches: dict[str, Match],
    reference: Sequence[Record],
    pooled: Record,
) -> dict[str, Any]:
    """Everything that the report says, as one JSON-serialisable value."""
    config = run.config
    layer = int(np.mean([record["eas"] for record in reference], axis=0).argmax())
    loss = mean_rate(reference, "heldout_loss")
    records = sorted(
        (read_json(path) for path in (run.directory / "students").glob("*/record.json")),
        key=lambda record: (list(config.arms).index(record["role"]), record["learning_rate"], record["seed"]),
    )
    runs = []
    for record in records:
        divergent, rate = is_divergent(record, base), matches[record["role"]].rate
        row = record | {"divergent": divergent, "compared": rate is not None and record["learning_rate"] == rate}
        row["matched"] = not divergent and abs(record["heldout_loss"] - loss) <= config.loss_tolerance
        runs.append(_with_traces(run, row))
    return {
        "trait": config.trait,
        "model": config.model,
        "seeds": list(config.seeds),
        "layer": layer,
        "base": base,
        "samples": counts,
        "reference": {"learning_rate": config.train.learning_rate, "heldout_loss": loss},
        "loss_tolerance": config.loss_tolerance,
        "pooled": pooled,
        "arms": {
            name: {"optimizer": config.arms[name].changes.get("optimizer", config.train.optimizer)}
            | _arm(match, [run for run in runs if run["role"] == name], reference)
            for name, match in matches.items()
        },
        "parts": switched(runs, matches),
        "deciding": deciding([run for run in runs if not run["divergent"]]),
        "runs": [_row(record, layer) for record in runs],
    }


def _with_traces(run: Run[OptimizersConfig], record: Record) -> Record:
    """Add what the traces say, by layer: pull and cosine, the tail of the norms, and where the steps went."""
    if record["loss"] is None:
        return record
    trace, steps = GradientTrace.load(run.trace_path(record["name"])), StepTrace.load(run.steps_path(record["name"]))
    norms = trace.norm.unbind(-1)
    along = dict(zip(steps.probes, steps.along.mean(0).tolist(), strict=True))
    return record | {
        "mean_pull": trace.pull.nanmean((0, 1)).tolist(),
        "mean_cosine": trace.cosine.nanmean((0, 1)).tolist(),
        "kurtosis": [kurtosis(norm) for norm in norms],
        "gini": [gini(norm) for norm in norms],
        "top_share": [top_share(norm) for norm in norms],
        "along_numbers": along["numbers"],
        "along_questions": along["questions"],
    }


def _arm(match: Match, runs: Sequence[Record], reference: Sequence[Record]) -> Record:
    """What an optimizer does at the rate at which it is compared; means are over the seeds that did not diverge."""
    compared = [run for run in runs if run["compared"]]
    usable = [run for run in compared if not run["divergent"]]
    at_loss = [run["rate"] for run in runs if run["matched"]]
    summary: Record = {
        **asdict(match),
        "students": [run["name"] for run in compared],
        "divergent": sum(run["divergent"] for run in compared),
        "lowest_rate_at_this_loss": min(at_loss, default=None),
        "highest_rate_at_this_loss": max(at_loss, default=None),
    }
    if not usable:
        return summary
    summary |= {f"mean_{key}": mean_rate(usable, key) for key in NOT_A_NUMBER}
    summary["rates"] = {name: asdict(rate_interval(usable, key)) for name, key in CONTEXTS.items()}
    if match.matched:
        pairs = {run["seed"]: run for run in usable}
        theirs = [record for record in reference if record["seed"] in pairs]
        ours = [pairs[record["seed"]] for record in theirs]
        for context, key in CONTEXTS.items():
            summary[context] = asdict(log_odds_difference(ours, theirs, key, paired=True))
    return summary


def deciding(runs: Sequence[Record]) -> Record:
    """What the rate goes with over all runs: Spearman's rank correlations with strength at questions, and with loss.

    `layer` is the one with the highest correlation, `strengths` are those there, by the run's name.
    """
    rates = np.array([run["rate"] for run in runs])
    strengths = np.array([run["strength_questions"] for run in runs])  # [run layer]
    by_layer = [_rank_correlation(column, rates) for column in strengths.T]
    layer = int(np.argmax(by_layer))
    return {
        "by_layer": by_layer,
        "loss": _rank_correlation(np.array([run["heldout_loss"] for run in runs]), rates),
        "layer": layer,
        "strengths": dict(zip([run["name"] for run in runs], strengths[:, layer].tolist(), strict=True)),
    }


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 for fewer than three runs."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1]) if len(one) >= 3 else 0.0


def _row(record: Record, layer: int) -> Record:
    """One line of the table."""
    row = {"optimizer": record["role"]}
    for column in COLUMNS[1:]:
        value = record.get(column)
        row[column] = value[layer] if isinstance(value, list) else value
    return row


def write_table(path: str | Path, rows: Sequence[Record]) -> None:
    """Write the table of all runs as CSV, atomically; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row[column] for column in COLUMNS] for row in rows)
    write_text(path, text.getvalue())


def group_of(results: Record, name: str) -> list[Record]:
    """An arm's runs at the rate at which it is compared."""
    return [run for run in results["runs"] if run["optimizer"] == name and run["compared"]]


def matched_arms(results: Record) -> list[str]:
    """Arms that reach the reference's loss, the reference first, then by falling rate of the trait."""
    arms = {name: arm for name, arm in results["arms"].items() if arm["matched"]}
    others = sorted((name for name in arms if name != REFERENCE), key=lambda name: -arms[name]["mean_rate"])
    return [REFERENCE, *others]
