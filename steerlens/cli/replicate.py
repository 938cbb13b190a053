"""The experiments on the command line: `steerlens replicate NAME --on PROFILE`."""

import argparse
from pathlib import Path
from typing import Any

from steerlens.cli.flags import FAILS, HOLDS, command


def add_commands(commands: Any) -> None:
    """Declare the command of this module."""
    from steerlens.replication.names import known_experiments, known_profiles

    names, profiles = known_experiments(), known_profiles()
    replicate = command(
        commands, "replicate", _replicate, "run experiments of the paper on a model, and write a report"
    )
    replicate.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help=f"{', '.join(names)}; all; or a Python file with an experiment of your own",
    )
    replicate.add_argument(
        "--on", default="organism", metavar="PROFILE", help=f"{', '.join(profiles)}; or a TOML file (default: organism)"
    )
    replicate.add_argument(
        "--preset", choices=("smoke", "quick", "full"), default="quick",
        help="smoke: does it run; quick: one answer; full: what the documentation quotes (default: quick)",
    )  # fmt: skip
    replicate.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    replicate.add_argument(
        "--workers", type=int, default=0, help="students at a time (default: one a core, or one on a GPU)"
    )
    replicate.add_argument("--ray", metavar="ADDRESS", help="train in Ray: local, auto, or a cluster's address")
    replicate.add_argument("--cpus-per-job", type=float, default=1.0, help="what Ray keeps free for each (default: 1)")
    replicate.add_argument("--gpus-per-job", type=float, default=0.0, help="what Ray keeps free for each (default: 0)")


def _replicate(options: argparse.Namespace) -> int:
    from steerlens.jobs import Workers
    from steerlens.replication.lab.claims import listed
    from steerlens.replication.lab.lab import Lab
    from steerlens.replication.lab.profile import read_profile
    from steerlens.replication.lab.run import find_experiment, known_experiments, replicate_all

    profile = read_profile(options.on)
    names = tuple(options.names)
    if options.names == ["all"]:
        lacking = {name: find_experiment(name).lacks(profile) for name in known_experiments()}
        names = tuple(name for name, lacks in lacking.items() if not lacks)
        for name, lacks in lacking.items():
            if lacks:
                print(f"{name} is left out: the profile {profile.name!r} has no {' and no '.join(lacks)}.")
    experiments = [find_experiment(name) for name in names]
    workers = Workers(options.workers, options.ray, options.cpus_per_job, options.gpus_per_job)
    known = [one.minutes[options.preset] for one in experiments if options.preset in one.minutes]
    if profile.weights.startswith("organism:") and len(known) == len(experiments):
        print(f"About {sum(known):.0f} minutes of CPU time on the embedded model; less where some of it is done.")
    found = replicate_all(names, Lab(profile, options.preset, options.out, workers), print)
    claims = {f"{name}: {claim.name}": claim for name, one in found.items() for claim in one.claims}
    if claims:
        print(f"\n{listed(claims)}")
    print(f"\nReport: {options.out / 'report.html'}")
    return HOLDS if all(claim.holds for claim in claims.values()) else FAILS
