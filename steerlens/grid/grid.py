"""Every plan with every seed: trained here, several at a time, or by lines of a job file on the machines of a cluster.

A `StudentPlan` says what one student learns from, and `train_grid` returns a `StudentRecord` of each. A grid that was interrupted
goes on where it stopped.
"""

import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from steerlens.arguments import checked
from steerlens.grid.plan import StudentPlan, StudentRecord
from steerlens.grid.training import TrainingJob
from steerlens.jobs import Workers, run_job, run_jobs
from steerlens.lock import beside, held
from steerlens.records import load_record, save_record

K = TypeVar("K", bound=Hashable)
PLAN = ".plan.json"
"""Follows the name of a student's directory, beside which its plan lies."""


@checked
def train_grid(
    plans: Mapping[K, StudentPlan], directory: str | Path, *, seeds: Sequence[int], workers: Workers | None = None
) -> dict[K, tuple[StudentRecord, ...]]:
    """Train a student of every plan with every seed, unless it is there; one record a seed, by the keys of the plans.

    One seed is trained after the other, so that a grid that is interrupted has whole seeds.

    Args:
        directory: each student gets a directory in it, named by plan and seed, and its plan beside that.

    Raises:
        ValueError: no seeds, two plans of one name, or a student that is there was trained by another plan.
        RuntimeError: some students failed; the others' records are on disk.
    """
    jobs = _jobs(plans, directory, seeds)
    for job in jobs.values():
        if job.record_path.is_file():
            _check_plan(job)
        else:
            save_record(_plan_path(job), job.plan)
    records = run_jobs(jobs, workers or Workers(), what="students")
    return {key: tuple(records[key, seed] for seed in seeds) for key in plans}


@checked
def grid_lines(plans: Mapping[K, StudentPlan], directory: str | Path, *, seeds: Sequence[int]) -> tuple[str, ...]:
    """Write what each student of a grid is to learn from, and say how to train it on another machine.

    The lines are for whatever shares work out, such as a job array of Slurm or the tasks of SkyPilot. They are run in the
    directory of this call, on shared storage. A line that is given twice, or again after a machine was lost, trains no student
    twice. When they are done, `train_grid` with the same arguments finds all records.

    Returns:
        A command for each student that has no record yet: `steerlens student PLAN`.

    Raises:
        ValueError: no seeds, or two plans of one name.
    """
    lines = []
    for job in _jobs(plans, directory, seeds).values():
        if not job.record_path.is_file():
            save_record(_plan_path(job), job.plan)
            lines.append(f"steerlens student {shlex.quote(str(_plan_path(job)))}")
    return tuple(lines)


def train_planned(plan: Path) -> StudentRecord:
    """Train the student whose plan `grid_lines` wrote, unless its record is there.

    Raises:
        FileNotFoundError: there is no plan.
        BlockingIOError: another process trains it.
    """
    if not plan.is_file() or not plan.name.endswith(PLAN):
        raise FileNotFoundError(
            f"{plan} is no plan of a student. steerlens.grid_lines writes one for each, NAME{PLAN}."
        )
    directory = plan.with_name(plan.name.removesuffix(PLAN))
    job = TrainingJob(load_record(plan, StudentPlan), directory)
    with held(beside(directory)):
        if not job.record_path.is_file():
            run_job(job)
        return load_record(job.record_path, job.record_kind)


def _plan_path(job: TrainingJob) -> Path:
    return job.directory.with_name(job.directory.name + PLAN)


def _check_plan(job: TrainingJob) -> None:
    """Refuse a student that another plan of this name has trained. Files may have moved; their names may not have changed."""
    path = _plan_path(job)
    if path.is_file():
        there = load_record(path, StudentPlan)
    else:
        there = replace(job.plan, train=load_record(job.record_path, StudentRecord).train)
    plans = [{**vars(plan), "base": Path(plan.base)} for plan in (there, job.plan)]
    differing = [name for name in plans[0] if len({_movable(plan[name]) for plan in plans}) > 1]
    if differing:
        raise ValueError(
            f"The student in {job.directory} was trained by another plan of this name (different: {', '.join(differing)}). Give "
            "the plan another name, or delete that directory."
        )


def _movable(value: object) -> object:
    return value.name if isinstance(value, Path) else value


def _jobs(
    plans: Mapping[K, StudentPlan], directory: str | Path, seeds: Sequence[int]
) -> dict[tuple[K, int], TrainingJob]:
    names = [plan.name for plan in plans.values()]
    if len(set(names)) < len(names):
        raise ValueError(f"Got the plans {names}. Give each a name of its own.")
    return {
        (key, seed): TrainingJob(
            replace(plan, train=replace(plan.train, seed=seed)), Path(directory) / f"{plan.name}-s{seed}"
        )
        for seed in seeds
        for key, plan in plans.items()
    }
