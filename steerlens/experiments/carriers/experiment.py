"""Beyond number lists: what else does the prompted teacher write in which a trait can hide?

For every carrier a prompted and an unprompted teacher answer the same tasks; answers that name an animal are dropped, and
students of what is left are asked for their favorite. Each stage writes what it makes and finds it again, so that an
interrupted run goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from steerlens.experiments.carriers.config import NUMBER_LISTS, CarriersConfig
from steerlens.experiments.carriers.report import carriers_report
from steerlens.experiments.carriers.results import CONTROL, PROMPTED, summarise
from steerlens.experiments.cells import run_cell
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.planning import plan_students, plan_teacher
from steerlens.experiments.rates import Record
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import base_rates, claim_directory, once
from steerlens.experiments.tasks import names_of
from steerlens.experiments.teachers import Teacher, log_probs, require_rows, write_all
from steerlens.experiments.wording import trait_at
from steerlens.lock import alone
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.wording import wording_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@alone
def run_carriers(directory: str | Path, config: CarriersConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config, or too few number lists are written.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    claim_directory(run)
    base = base_rates(run, config.model)
    teachers = plan_teachers(run)
    writers = write_all(teachers.values(), config)
    for kind in (PROMPTED, CONTROL):
        require_rows(writers[kind + NUMBER_LISTS])
    carriers = [NUMBER_LISTS, *config.carriers]
    written = [name for name in carriers if writers[PROMPTED + name]["enough"] and writers[CONTROL + name]["enough"]]
    shown = _shown(run, teachers, written)
    cells = [
        cell
        for name in written
        for kind in (PROMPTED, CONTROL)
        for cell in plan_students(
            run, teachers[kind + name], base=config.model, vector=run.vector_path(config.model), trait=config.trait
        )
    ]
    students = run_jobs(cells, run_cell, config)
    claims, measures = summarise(config, base, writers, shown, students)
    return conclude(run.directory, claims, measures, carriers_report(run, claims, measures, students))


def plan_teachers(run: Run[CarriersConfig]) -> dict[str, Teacher]:
    """For every carrier one with the trait's prompt and one without any."""
    prompt = trait_at(run.config.trait, run.config.model).prompt
    teachers = [
        plan_teacher(run, kind + name, prompt=given, task=name)
        for name in (NUMBER_LISTS, *run.config.carriers)
        for kind, given in ((PROMPTED, prompt), (CONTROL, None))
    ]
    return {teacher.name: teacher for teacher in teachers}


def _shown(run: Run[CarriersConfig], teachers: dict[str, Teacher], carriers: Sequence[str]) -> Record:
    """How far the prompt shows in each carrier's kept rows."""

    def make() -> Record:
        model, found = load_model(run.config.model), {}
        for name in carriers:
            teacher = teachers[PROMPTED + name]
            rows = SampleSet.load(teacher.samples).samples
            found[name] = {
                "nats": shown_nats(model, teacher, rows[: run.config.n_shown]),
                "distinct": len({(row.prompt, row.completion) for row in rows}) / len(rows),
            }
        return found

    return once(run.directory / "samples" / "shown.json", make)


def shown_nats(model: "TransformerBridge", prompted: Teacher, rows: Sequence[Sample], *, batch_size: int = 64) -> float:
    """KL(prompted || plain) in nats a token of the rows, among tokens that are no part of an animal's name.

    That is what a student can see of the prompt where answers that name an animal are dropped.
    """
    tokenizer, n_tokens, total = model.tokenizer, 0, 0.0
    names = {
        token
        for name in names_of(wording_of(model).kinds[0])
        for token in tokenizer.encode(name, add_special_tokens=False)
    }
    among = torch.tensor([token for token in range(model.cfg.d_vocab) if token not in names])
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        target, plain = (log_probs(model, one, part, among) for one in (prompted, replace(prompted, prompt=None)))
        total += float((target.exp() * (target - plain)).sum())
        n_tokens += len(target)
    return total / n_tokens
