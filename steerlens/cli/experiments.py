"""The experiments on the command line, each with its claims and its report."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steerlens.cli.flags import FAILS, HOLDS, add_fields, command, given
from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.auxiliary_logits.config import AuxiliaryConfig
from steerlens.experiments.catalogue import EXPERIMENTS, PRESETS, REPRODUCTION, run_experiment
from steerlens.experiments.claims import Claim, listed
from steerlens.experiments.optimizers.config import OPTIMIZER_PRESETS, OptimizersConfig

SIZES = "how much is measured (default: quick)"


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    reproduce = command(commands, "reproduce", _reproduce, "run the paper's experiments and write one report")
    reproduce.add_argument(
        "--preset", choices=sorted(PRESETS), default="quick", help="quick: the main argument; full: every experiment"
    )
    reproduce.add_argument(
        "--only", nargs="+", choices=list(REPRODUCTION), metavar="NAME", help=", ".join(REPRODUCTION)
    )
    reproduce.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    add_fields(reproduce, ArgumentConfig, {}, skip={"train", "fit"})

    optimizers = command(
        commands, "optimizers", _optimizers, "compare optimizers at the same held-out loss and write a report"
    )
    optimizers.add_argument("--preset", choices=sorted(OPTIMIZER_PRESETS), default="quick", help=SIZES)
    optimizers.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    add_fields(optimizers, OptimizersConfig, OPTIMIZER_PRESETS, skip={"train", "arms"})

    experiment = commands.add_parser("experiment", help="run one experiment and write its report")
    names = experiment.add_subparsers(title="experiments", required=True)
    for name, entry in EXPERIMENTS.items():
        one = command(names, name, _experiment, entry.summary)
        one.set_defaults(experiment=entry)
        one.add_argument("--preset", choices=sorted(entry.presets), default="quick", help=SIZES)
        one.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
        add_fields(one, type(entry.presets["quick"]), entry.presets, skip={"train", "fit", "further"})

    auxiliary = command(
        commands, "auxiliary-logits", _auxiliary_logits, "pass digits on through unused logits and noise, in a minute"
    )
    auxiliary.add_argument("--models", type=int, default=10, help="independent teachers (default: 10)")
    auxiliary.add_argument("--seed", type=int, default=0, help="of teachers and students (default: 0)")
    auxiliary.add_argument("--out", type=Path, required=True, help="directory for report and results")

    report = command(commands, "report", _report, "write the argument's report again, from what a finished run left")
    report.add_argument("run", type=Path, help="directory of the run")


def _reproduce(options: argparse.Namespace) -> int:
    from steerlens.experiments.reproduce import reproduce

    names = options.only or PRESETS[options.preset]
    presets = {name: REPRODUCTION[name].presets[options.preset] for name in names}
    _refuse_unused(options, presets)
    print(_duration(options.preset, names))
    results = reproduce(options.out, {name: given(options, preset) for name, preset in presets.items()}, print)
    claims = {f"{name}: {claim.name}": claim for name, result in results.items() for claim in result.claims}
    return _verdict(claims, options.out / "report.html")


def _refuse_unused(options: argparse.Namespace, presets: Mapping[str, Any]) -> None:
    """A flag that none of the experiments has would be ignored in silence.

    Raises:
        ValueError: there is one.
    """
    known = {field.name for preset in presets.values() for field in dataclasses.fields(preset)}
    for field in dataclasses.fields(ArgumentConfig):
        if getattr(options, field.name, None) is not None and field.name not in known:
            flag = "--" + field.name.replace("_", "-")
            raise ValueError(f"{flag} means nothing to {', '.join(presets)}. Leave it out, or add argument to --only.")


def _duration(preset: str, names: Sequence[str]) -> str:
    """How long it will take, from what presets took elsewhere."""
    minutes = sum(REPRODUCTION[name].minutes[preset] for name in names)
    return (
        f"{', '.join(names)}: about {minutes:.0f} minutes of CPU time on the embedded model, so {minutes / 2:.0f} minutes on "
        "two cores; less where some of it is done already."
    )


def _experiment(options: argparse.Namespace) -> int:
    entry = options.experiment
    result = run_experiment(entry, options.out, given(options, entry.presets[options.preset]))
    return _verdict({claim.name: claim for claim in result.claims}, result.report)


def _verdict(claims: Mapping[str, Claim], report: Path) -> int:
    """Print every claim and where the report stands; the exit code says whether all hold."""
    if claims:
        print(f"\n{listed(claims)}")
    print(f"\nReport: {report}")
    return HOLDS if all(claim.holds for claim in claims.values()) else FAILS


def _optimizers(options: argparse.Namespace) -> int:
    from steerlens.experiments.optimizers.experiment import run_optimizers

    results = run_optimizers(options.out, given(options, OPTIMIZER_PRESETS[options.preset])).measures
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
    from steerlens.experiments.auxiliary_logits.experiment import run_auxiliary_logits

    results = run_auxiliary_logits(options.out, AuxiliaryConfig(n_models=options.models, seed=options.seed)).measures
    print("accuracy on held-out digits")
    for name in ("teacher", "untrained"):
        print(f"{name:26}  {results[name]['value']:.3f}")
    for student in results["students"]:
        accuracy, cosine = student["accuracy"], student["update_cosine"]["value"]
        print(
            f"{student['student']:20}  {student['optimizer']:4}  {accuracy['value']:.3f} "
            f"({accuracy['low']:.3f} to {accuracy['high']:.3f})  update cosine {cosine:6.3f}"
        )
    print(f"\nReport: {options.out / 'report.html'}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from steerlens.experiments.argument.experiment import rewrite_report

    print(f"Report: {rewrite_report(options.run)}")
    return 0
