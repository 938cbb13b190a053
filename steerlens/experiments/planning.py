"""Teachers and their students in a run in which all teachers write equally many rows."""

from dataclasses import replace
from pathlib import Path

from steerlens.experiments.cells import Cell
from steerlens.experiments.run import Run, file_name
from steerlens.experiments.taught_config import TaughtConfig
from steerlens.experiments.teachers import Teacher
from steerlens.vectors.interventions import Mode


def plan_teacher(
    run: Run[TaughtConfig], name: str, *, prompt: str | None = None, vector: Path | None = None, mode: Mode = "add"
) -> Teacher:
    """A teacher of this run's model, with as many rows as the run asks for."""
    config = run.config
    return Teacher(
        name=name,
        model=config.model,
        samples=run.directory / "samples" / f"{file_name(name)}.jsonl",
        n_rows=config.n_rows,
        n_heldout=config.n_heldout,
        n_prompts=config.n_prompts,
        prompt=prompt,
        vector=vector,
        mode=mode,
    )


def plan_students(run: Run[TaughtConfig], teacher: Teacher, *, base: str, vector: Path, trait: str) -> list[Cell]:
    """Students of a teacher, one a seed; `vector` is what their shift is compared to, `trait` what they are asked."""
    cells = []
    for seed in run.config.student_seeds:
        name = f"{file_name(teacher.name)}-s{seed}"
        cells.append(
            Cell(
                name=name,
                role=teacher.name,
                base=base,
                data=teacher.name,
                samples=teacher.samples,
                heldout=teacher.heldout,
                vector=vector,
                trait=trait,
                train=replace(run.config.train, seed=seed),
                directory=run.directory / "students" / name,
            )
        )
    return cells
