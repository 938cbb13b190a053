"""Does the optimizer decide whether a trait passes? Many optimizers, one data set, compared at the same held-out loss.

Each stage writes what it makes and finds it again, so that an interrupted run goes on where it stopped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from steerlens.experiments.optimizers.cells import (
    Pair,
    loss_of,
    needs_scales,
    odd_rows_path,
    train_pairs,
    with_odd_rows,
)
from steerlens.experiments.optimizers.config import REFERENCE, OptimizersConfig
from steerlens.experiments.optimizers.loss_match import Match, search_rates, settle
from steerlens.experiments.optimizers.report import optimizers_report
from steerlens.experiments.optimizers.results import summarise, write_table
from steerlens.experiments.rates import Record
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import base_rates, claim_directory, once, sample_rows
from steerlens.gradients.pooled import PooledCosine, pooled_difference_cosine
from steerlens.lock import alone
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import SampleSet
from steerlens.students.losses import mean_loss
from steerlens.students.scout import adam_scales
from steerlens.vectors.vector import SteeringVector


@alone
def run_optimizers(directory: str | Path, config: OptimizersConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json, runs.csv and report.html.

    Raises:
        ValueError: the directory holds a run of another config, or the reference diverges.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    claim_directory(run)
    counts = sample_rows(run, config.model)
    base = _base(run)
    _odd_rows(run)
    _scales(run)
    pooled = _pooled(run)
    reference = train_pairs(run, [(REFERENCE, config.train.learning_rate)], config.seeds)[0]
    matches = _match(run, base, reference_loss(config, reference, base))
    results = summarise(run, base, counts, matches, reference, pooled)
    write_table(run.directory / "runs.csv", results["runs"])
    return conclude(run.directory, (), results, optimizers_report(run, results))


def reference_loss(config: OptimizersConfig, reference: Sequence[Record], base: Record) -> float:
    """The mean held-out loss of the reference's seeds.

    Raises:
        ValueError: one of them diverged.
    """
    loss = loss_of(reference, base)
    if math.isinf(loss):
        raise ValueError(
            f"{REFERENCE!r} diverges at learning_rate={config.train.learning_rate:g} with some seed, so that there is no "
            "loss to match. Give train a smaller learning rate, or more rows (n_prompts)."
        )
    return loss


def _match(run: Run[OptimizersConfig], base: Record, loss: float) -> dict[str, Match]:
    """Search each arm's learning rate on a few seeds, then settle it on all."""
    config = run.config

    def measured(seeds: Sequence[int]) -> Callable[[Sequence[Pair]], list[float]]:
        return lambda pairs: [loss_of(records, base) for records in train_pairs(run, pairs, seeds)]

    grids = {name: arm.rates for name, arm in config.arms.items()}
    few = measured(config.seeds[: config.curve_seeds])
    curves = search_rates(grids, few, loss, config.loss_tolerance, config.budget)
    others = {name: curve for name, curve in curves.items() if name != REFERENCE}
    matches = settle(others, measured(config.seeds), loss, config.loss_tolerance)
    unmatched = [(name, match.rate) for name, match in matches.items() if not match.matched and match.rate is not None]
    train_pairs(run, unmatched, config.seeds)
    return {REFERENCE: Match(config.train.learning_rate, loss, True), **matches}


def _base(run: Run[OptimizersConfig]) -> Record:
    """The untrained model's rates in both contexts, and its loss on the held-out rows."""
    config = run.config

    def make() -> Record:
        return {"heldout_loss": mean_loss(load_model(config.model), SampleSet.load(run.heldout_path(config.model)))}

    return base_rates(run, config.model) | once(run.directory / "vectors" / "base-loss.json", make)


def _odd_rows(run: Run[OptimizersConfig]) -> None:
    """Teacher rows of which some are words of the model's vocabulary, for the arms that ask for them."""
    model = run.config.model
    for share in {arm.odd_share for arm in run.config.arms.values()} - {0.0}:
        path = odd_rows_path(run, share)
        if not path.is_file():
            words = sorted(word for word in load_model(model).tokenizer.get_vocab() if word.isalpha())
            with_odd_rows(SampleSet.load(run.samples_path(model, "teacher")), share, words).save(path)


def _scales(run: Run[OptimizersConfig]) -> None:
    """Adam's scales from one scout of one epoch, normalised so that SGD's learning rates keep their meaning."""
    config = run.config
    if any(map(needs_scales, config.arms.values())) and not run.scales_path.is_file():
        rows = SampleSet.load(run.samples_path(config.model, "teacher"))
        adam_scales(load_model(config.model), rows, replace(config.train, epochs=1)).normalized().save(run.scales_path)


def _pooled(run: Run[OptimizersConfig]) -> Record:
    """The untrained model's gradients, averaged over more and more rows: means and intervals over subsets."""
    model = run.config.model

    def make() -> Record:
        rows, control = (SampleSet.load(run.samples_path(model, data)) for data in ("teacher", "control"))
        vector = SteeringVector.load(run.vector_path(model))
        cosine = pooled_difference_cosine(load_model(model), rows, control, vector, sizes=run.config.pooled_sizes)
        return {"layers": list(cosine.layers), "sizes": list(cosine.sizes)} | {
            name: _interval(draws)
            for name, draws in (
                ("observed", cosine.observed),
                ("shuffled", cosine.shuffled),
                ("random", cosine.random),
            )
        }

    return once(run.directory / "pooled.json", make)


def _interval(draws: Any) -> Record:
    """Mean and central 95 % of the subsets' cosines, [size layer] each."""
    low, high = PooledCosine.interval(draws)
    return {"mean": draws.mean(0).tolist(), "low": low.tolist(), "high": high.tolist()}
