"""What passes on, and could it be told beforehand? Personas, other prompts and deaf teachers: examined first, then taught.

Reference: arXiv 2606.00995, section 4: what is not steerable is not learned. Each stage writes what it makes and finds it
again, so that an interrupted run goes on where it stopped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steerlens.experiments.cells import Cell, run_cell
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.planning import plan_students, plan_teacher
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import claim_directory
from steerlens.experiments.teachers import Teacher, require_rows, write_all
from steerlens.experiments.zoo.config import ZooConfig
from steerlens.experiments.zoo.prompts import PERSONA, Member, members
from steerlens.experiments.zoo.report import zoo_report
from steerlens.experiments.zoo.results import control_name, summarise
from steerlens.experiments.zoo.similarity import activation_similarities
from steerlens.experiments.zoo.steerability import Examination, examine
from steerlens.lock import alone
from steerlens.vectors.vector import SteeringVector


@alone
def run_zoo(directory: str | Path, config: ZooConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config, or a control writes too few lists.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    claim_directory(run)
    zoo = members(run)
    examined = run_jobs([_examination(run, member) for member in zoo], examine, config, what="prompts")
    teachers = plan_teachers(run, zoo)
    writers = write_all(teachers.values(), config)
    for untold in {member.untold for member in zoo}:
        require_rows(writers[control_name(untold)])
    cells = [
        cell for name, teacher in teachers.items() if writers[name]["enough"] for cell in _cells(run, zoo, teacher)
    ]
    students = run_jobs(cells, run_cell, config)
    claims, measures = summarise(config, zoo, examined, writers, students)
    measures["similarities"] = _similarities(run, zoo, cells)
    return conclude(run.directory, claims, measures, zoo_report(run, claims, measures, students))


def _similarities(run: Run[ZooConfig], zoo: Sequence[Member], cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Of the personas that have students, with the mean differences that their examination saved; None without any."""
    taught, model = {cell.role for cell in cells}, run.config.model
    personas = [member.name for member in zoo if member.kind == PERSONA and member.name in taught]
    vectors = {name: SteeringVector.load(run.named_vector_path(name)) for name in personas}
    shifts = {
        name: [SteeringVector.load(cell.directory / "v_student.safetensors") for cell in cells if cell.role == name]
        for name in (*personas, control_name(model))
    }
    return activation_similarities(shifts, vectors, control_name(model)) if vectors else None


def _examination(run: Run[ZooConfig], member: Member) -> Examination:
    return Examination(
        name=member.name,
        model=member.model,
        prompt=member.prompt,
        trait=member.trait,
        strengths=run.config.strengths,
        fit=run.config.fit,
        vector=run.named_vector_path(member.name),
    )


def plan_teachers(run: Run[ZooConfig], zoo: Sequence[Member]) -> dict[str, Teacher]:
    """One for every prompt, and one without any for each model."""
    told = {member.name: plan_teacher(run, member.name, model=member.model, prompt=member.prompt) for member in zoo}
    untold = {control_name(model): model for model in dict.fromkeys(member.untold for member in zoo)}
    return told | {name: plan_teacher(run, name, model=model) for name, model in untold.items()}


def _cells(run: Run[ZooConfig], zoo: Sequence[Member], teacher: Teacher) -> list[Cell]:
    """A teacher's students; those of a control are compared to the first prompt's vector of its model."""
    own = next(member for member in zoo if teacher.name in (member.name, control_name(member.untold)))
    return plan_students(run, teacher, base=teacher.model, vector=run.named_vector_path(own.name), trait=own.trait)
