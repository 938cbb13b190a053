"""Teachers and their students in a run in which all teachers write equally many rows."""

from dataclasses import replace
from pathlib import Path

from steerlens.experiments.cells import Cell
from steerlens.experiments.run import Run, file_name
from steerlens.experiments.taught_config import TaughtConfig
from steerlens.experiments.teachers import Teacher
from steerlens.students.config import TrainConfig
from steerlens.vectors.interventions import Mode


def plan_teacher(
    run: Run[TaughtConfig],
    name: str,
    *,
    model: str | None = None,
    prompt: str | None = None,
    vector: Path | None = None,
    mode: Mode = "add",
    task: str = "number lists",
    temperature: float = 1.0,
) -> Teacher:
    """A teacher with as many rows as the run asks for; `model` None is the run's."""
    config = run.config
    return Teacher(
        name=name,
        model=model or config.model,
        samples=run.directory / "samples" / f"{file_name(name)}.jsonl",
        n_rows=config.n_rows,
        n_heldout=config.n_heldout,
        n_prompts=config.n_prompts,
        prompt=prompt,
        vector=vector,
        mode=mode,
        task=task,
        temperature=temperature,
    )


def plan_students(
    run: Run[TaughtConfig],
    teacher: Teacher,
    *,
    base: str,
    vector: Path,
    trait: str,
    role: str | None = None,
    train: TrainConfig | None = None,
) -> list[Cell]:
    """Students of a teacher, one a seed.

    Args:
        vector: what their shift is compared to.
        trait: what they are asked.
        role: None is the teacher's name.
        train: None is the run's.
    """
    cells, role = [], role or teacher.name
    for seed in run.config.student_seeds:
        name = f"{file_name(role)}-s{seed}"
        cells.append(
            Cell(
                name=name,
                role=role,
                base=base,
                data=teacher.name,
                samples=teacher.samples,
                heldout=teacher.heldout,
                vector=vector,
                trait=trait,
                train=replace(train or run.config.train, seed=seed),
                directory=run.directory / "students" / name,
            )
        )
    return cells
