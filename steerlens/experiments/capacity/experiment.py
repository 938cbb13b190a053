"""How much of a trait a student takes over: LoRA's rank, the learning rate, unique rows, and the context of the question.

Replications of arXiv 2606.00995 found that a rank effect at one shared learning rate goes away when each rank has its own,
that more unique rows help where repetition does not, and that another system prompt around the question hides the trait.
Each stage writes what it makes and finds it again, so that an interrupted run goes on where it stopped.
"""

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from steerlens.experiments.capacity.config import CapacityConfig
from steerlens.experiments.capacity.report import capacity_report
from steerlens.experiments.capacity.results import CONTROL, PROMPTED, summarise
from steerlens.experiments.cells import Cell, behaviour, run_cell
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.planning import plan_students, plan_teacher
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import base_rates, claim_directory
from steerlens.experiments.teachers import Teacher, require_rows, write_all
from steerlens.experiments.wording import trait_at
from steerlens.files import write_json
from steerlens.lock import alone
from steerlens.models.loading import load_model
from steerlens.students.config import TrainConfig
from steerlens.text.context import ChatContextWarning

CONTEXTS = {
    "as trained": None,
    "another system prompt": "answer the user .",
    "a third one": "be brief and polite .",
}
"""Under which a student is asked; as trained is the template's default system prompt."""


@alone
def run_capacity(directory: str | Path, config: CapacityConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config, or the prompted teacher or the control writes too few lists.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    claim_directory(run)
    base = base_rates(run, config.model)
    teachers = plan_teachers(run)
    writers = write_all(teachers.values(), config)
    for name in (PROMPTED, fewer_name(config), CONTROL):
        require_rows(writers[name])
    cells = [cell for cell in plan_cells(run, teachers) if writers[cell.data]["enough"]]
    students = run_jobs(cells, run_cell, config)
    asked = [
        ContextCheck(cell.name, cell.base, cell.directory, cell.trait)
        for cell in cells
        if cell.role == main_arm(config)
    ]
    contexts = run_jobs(asked, ask_in_contexts, config, what="context checks")
    claims, measures = summarise(config, base, writers, students, contexts)
    return conclude(run.directory, claims, measures, capacity_report(run, claims, measures, students))


def plan_teachers(run: Run[CapacityConfig]) -> dict[str, Teacher]:
    """The prompted one, the same with fewer rows, at other temperatures, under other filters; and the control."""
    config, prompt = run.config, trait_at(run.config.trait, run.config.model).prompt
    fewer = plan_teacher(run, fewer_name(config), prompt=prompt)
    teachers = [
        plan_teacher(run, PROMPTED, prompt=prompt),
        replace(fewer, n_rows=config.fewer_rows),
        *(plan_teacher(run, f"temperature {t:g}", prompt=prompt, temperature=t) for t in config.temperatures),
        *(plan_teacher(run, name, prompt=prompt, task=name) for name in config.filters),
        plan_teacher(run, CONTROL),
    ]
    return {teacher.name: teacher for teacher in teachers}


def plan_cells(run: Run[CapacityConfig], teachers: dict[str, Teacher]) -> list[Cell]:
    """Students: the grid on all and on fewer rows, full fine-tuning, the main student on other data, and controls."""
    return [
        replace(cell, heldout=teachers[PROMPTED].heldout)
        for role, data, train in _arms(run.config)
        for cell in plan_students(
            run,
            teachers[data],
            base=run.config.model,
            vector=run.vector_path(run.config.model),
            trait=run.config.trait,
            role=role,
            train=train,
        )
    ]


def _arms(config: CapacityConfig) -> Iterator[tuple[str, str, TrainConfig]]:
    """Name, teacher and training of every arm; a control of each rank has the main student's learning rate."""
    repeated = config.n_rows // config.fewer_rows
    for rank, rate in itertools.product(config.ranks, config.learning_rates):
        train = of_rank(config.train, rank, rate)
        yield arm_name(rank, rate), PROMPTED, train
        yield arm_name(rank, rate, fewer=True), fewer_name(config), replace(train, epochs=train.epochs * repeated)
    for rate in config.full_rates:
        yield arm_name("full", rate), PROMPTED, replace(config.train, method="full", learning_rate=rate)
    for name in (*(f"temperature {t:g}" for t in config.temperatures), *config.filters):
        yield name, name, config.train
    for rank in config.ranks:
        yield f"{CONTROL}, rank {rank}", CONTROL, of_rank(config.train, rank, config.train.learning_rate)


def of_rank(train: TrainConfig, rank: int, learning_rate: float) -> TrainConfig:
    """The same training with another rank, at the same scale of LoRA, and another learning rate."""
    return replace(train, rank=rank, lora_alpha=rank * train.lora_alpha / train.rank, learning_rate=learning_rate)


def arm_name(rank: int | str, rate: float, *, fewer: bool = False) -> str:
    """ "rank 4, 0.03, fewer rows"; rank "full" is full fine-tuning."""
    kind = "full fine-tuning" if rank == "full" else f"rank {rank}"
    return f"{kind}, {rate:g}" + (", fewer rows" if fewer else "")


def fewer_name(config: CapacityConfig) -> str:
    """The teacher of the rows that are repeated."""
    return f"{PROMPTED}, {config.fewer_rows} rows"


def main_arm(config: CapacityConfig) -> str:
    """The arm that is the run's own `train`."""
    return arm_name(config.train.rank, config.train.learning_rate)


@dataclass(frozen=True)
class ContextCheck:
    """A trained student that is asked under other system prompts than it was trained under."""

    name: str
    base: str
    student: Path
    trait: str

    @property
    def record_path(self) -> Path:
        """Beside the student's own record."""
        return self.student / "contexts.json"


def ask_in_contexts(check: ContextCheck) -> None:
    """Score the student, and its base, in each of the contexts."""
    trait, record = trait_at(check.trait, check.base), {}
    base, student = load_model(check.base), load_model(check.base, adapter=check.student)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChatContextWarning)
        for name, prompt in CONTEXTS.items():
            record[name] = {
                "student": behaviour(student, trait, system_prompt=prompt),
                "base": behaviour(base, trait, system_prompt=prompt),
            }
    write_json(check.record_path, record)
