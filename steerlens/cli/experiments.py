"""The experiments on the command line, each with its claims and its report."""

import argparse
import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steerlens.cli.flags import FAILS, HOLDS, add_fields, command, given
from steerlens.experiments.catalogue import EXPERIMENTS
from steerlens.experiments.config import PRESETS, ReproduceConfig
from steerlens.experiments.optimizers_config import OPTIMIZER_PRESETS, OptimizersConfig


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    reproduce = command(commands, "reproduce", _reproduce, "run the paper's argument and write a report")
    reproduce.add_argument("--preset", choices=sorted(PRESETS), default="quick")
    reproduce.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    add_fields(reproduce, ReproduceConfig, skip={"train", "fit"})

    optimizers = command(
        commands, "optimizers", _optimizers, "compare optimizers at the same held-out loss and write a report"
    )
    optimizers.add_argument("--preset", choices=sorted(OPTIMIZER_PRESETS), default="quick")
    optimizers.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    add_fields(optimizers, OptimizersConfig, skip={"train", "arms"})

    experiment = commands.add_parser("experiment", help="run one experiment and write its report")
    names = experiment.add_subparsers(title="experiments", required=True)
    for name, entry in EXPERIMENTS.items():
        one = command(names, name, _experiment, entry.summary)
        one.set_defaults(experiment=entry)
        one.add_argument("--preset", choices=sorted(entry.presets), default="quick")
        one.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
        add_fields(one, type(entry.presets["quick"]), skip={"train", "fit", "further"})

    auxiliary = command(
        commands, "auxiliary-logits", _auxiliary_logits, "pass digits on through unused logits and noise, in a minute"
    )
    auxiliary.add_argument("--models", type=int, default=10, help="independent teachers (default: 10)")
    auxiliary.add_argument("--seed", type=int, default=0)
    auxiliary.add_argument("--out", type=Path, required=True, help="directory for report and results")

    report = command(commands, "report", _report, "write a finished run's report again")
    report.add_argument("run", type=Path, help="directory of the run")


def _reproduce(options: argparse.Namespace) -> int:
    from steerlens.experiments.reproduce import reproduce

    results = reproduce(given(options, PRESETS[options.preset]), options.out, print)
    return _verdict(results["claims"], options.out / "report.html")


def _experiment(options: argparse.Namespace) -> int:
    module, _, name = options.experiment.run.partition(":")
    run = getattr(importlib.import_module(module), name)
    result = run(options.out, given(options, options.experiment.presets[options.preset]))
    return _verdict([dataclasses.asdict(claim) for claim in result.claims], result.report)


def _verdict(claims: Sequence[dict[str, Any]], report: Path) -> int:
    """Print every claim and where the report stands; the exit code says whether all hold."""
    width = max(len(claim["name"]) for claim in claims)
    print(f"\n{'claim':{width}}  measured  threshold")
    for claim in claims:
        verdict = "holds" if claim["holds"] else "does not hold"
        print(f"{claim['name']:{width}}  {claim['measured']:8.3f}  {claim['threshold']:9.3f}  {verdict}")
    print(f"\nReport: {report}")
    return HOLDS if all(claim["holds"] for claim in claims) else FAILS


def _optimizers(options: argparse.Namespace) -> int:
    from steerlens.experiments.optimizers import compare_optimizers

    results = compare_optimizers(given(options, OPTIMIZER_PRESETS[options.preset]), options.out, print)
    width = max(map(len, results["arms"]))
    print(f"\n{'optimizer':{width}}  learning rate  held-out    rate    mass")
    for name, arm in results["arms"].items():
        if "mean_rate" in arm:
            measures = f"{arm['mean_heldout_loss']:8.4f}  {arm['mean_rate']:6.3f}  {arm['mean_mass']:6.3f}"
            print(f"{name:{width}}  {arm['rate']:13.4g}  {measures}  {'' if arm['matched'] else 'not matched'}")
        else:
            print(f"{name:{width}}  every run diverged")
    print(f"\nReport: {options.out / 'report.html'}\nTable: {options.out / 'runs.csv'}")
    return 0


def _auxiliary_logits(options: argparse.Namespace) -> int:
    import torch

    from steerlens.experiments.auxiliary_logits import AuxiliaryConfig, auxiliary_logits

    torch.set_num_threads(1)  # models this small lose more to waiting threads than they gain
    results = auxiliary_logits(AuxiliaryConfig(n_models=options.models, seed=options.seed), options.out)
    print("accuracy on held-out digits")
    for name in ("teacher", "untrained"):
        print(f"{name:26}  {results[name]['mean']:.3f}")
    for student in results["students"]:
        accuracy, cosine = student["accuracy"], student["update_cosine"]["mean"]
        print(
            f"{student['student']:20}  {student['optimizer']:4}  {accuracy['mean']:.3f} "
            f"({accuracy['low']:.3f} to {accuracy['high']:.3f})  update cosine {cosine:6.3f}"
        )
    print(f"\nReport: {options.out / 'report.html'}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from steerlens.experiments.reproduce import rewrite_report

    print(f"Report: {rewrite_report(options.run)}")
    return 0
