"""Is the vector the cause? Added without the prompt it should teach the trait; taken out of the prompted teacher, nothing.

The same for the student's own shift: added to the base it should show the trait; taken out of the student, hide it.
Reference: arXiv 2606.00995, sections 3.2 and 3.3. Each stage writes what it makes and finds it again, so that an
interrupted run goes on where it stopped.
"""

from pathlib import Path

from steerlens.experiments.causal.config import CausalConfig
from steerlens.experiments.causal.report import causal_report
from steerlens.experiments.causal.results import ADDED, BEHAVIOUR, CONTROL, PROMPTED, TAKEN_OUT, summarise
from steerlens.experiments.cells import behaviour, run_cell
from steerlens.experiments.dissection import Dissection, dissect
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.planning import plan_students, plan_teacher
from steerlens.experiments.rates import Record
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import base_rates, claim_directory, once
from steerlens.experiments.teacher_vectors import check_ways, everywhere, teacher_vectors
from steerlens.experiments.teachers import Teacher, effect_on_lists, require_rows, write_all
from steerlens.experiments.wording import trait_at
from steerlens.lock import alone
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import SampleSet
from steerlens.vectors.interventions import Mode, steer


@alone
def run_causal(directory: str | Path, config: CausalConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config, a vector is not known, the prompt has no effect, or it leaves
            too few lists.
        OSError: the directory cannot be written to.
    """
    check_ways(config.vectors)
    run = Run(config, Path(directory))
    claim_directory(run)
    base = base_rates(run, config.model)
    vectors = _vectors(run)
    teachers = plan_teachers(run, list(vectors))
    writers = write_all(teachers, config)
    for name in (PROMPTED, CONTROL):
        require_rows(writers[name])
    themselves = _teachers_themselves(run, teachers)
    vector = run.vector_path(config.model)
    cells = [
        cell
        for teacher in teachers
        if writers[teacher.name]["enough"]
        for cell in plan_students(run, teacher, base=config.model, vector=vector, trait=config.trait)
    ]
    students = run_jobs(cells, run_cell, config)
    prompted = [
        Dissection(cell.name, cell.base, cell.directory, cell.trait, cell.train.seed)
        for cell in cells
        if cell.role == PROMPTED
    ]
    dissections = run_jobs(prompted, dissect, config, what="dissections")
    claims, measures = summarise(config, base, vectors, writers, themselves, students, dissections)
    return conclude(run.directory, claims, measures, causal_report(run, claims, measures, students, dissections))


def _vectors(run: Run[CausalConfig]) -> Record:
    """Fit what v_teacher may be; save each as it is added and as it is taken out."""
    trait = trait_at(run.config.trait, run.config.model)

    def make() -> Record:
        model, record = load_model(run.config.model), {}
        for name, vector in teacher_vectors(model, trait, run.config.vectors, run.config.fit).items():
            vector.save(run.named_vector_path(f"{name} add"))
            everywhere(vector, model.cfg.n_layers).save(run.named_vector_path(f"{name} project_out"))
            with steer(model, vector):
                steered = behaviour(model, trait)
            facts = {"layers": list(vector.layers), "norms": list(vector.norms.values()), **vector.metrics}
            record[name] = facts | {key: steered[key] for key in BEHAVIOUR}
        return record

    return once(run.directory / "vectors" / "teacher.json", make)


def plan_teachers(run: Run[CausalConfig], vectors: list[str]) -> list[Teacher]:
    """The prompted teacher, the control, and for every vector one steered without prompt and one deprived under it."""
    prompt = trait_at(run.config.trait, run.config.model).prompt

    def steered(name: str, prompt: str | None, vector: str, mode: Mode) -> Teacher:
        path = run.named_vector_path(f"{vector} {mode}")
        return plan_teacher(run, name + vector, prompt=prompt, vector=path, mode=mode)

    return [
        plan_teacher(run, PROMPTED, prompt=prompt),
        plan_teacher(run, CONTROL),
        *(steered(ADDED, None, vector, "add") for vector in vectors),
        *(steered(TAKEN_OUT, prompt, vector, "project_out") for vector in vectors),
    ]


def _teachers_themselves(run: Run[CausalConfig], teachers: list[Teacher]) -> dict[str, Record]:
    """What of the prompt's effect on pure lists (the prompted teacher's held-out rows) each teacher has, and its own answers."""
    trait = trait_at(run.config.trait, run.config.model)

    def make() -> dict[str, Record]:
        model, lists = load_model(run.config.model), SampleSet.load(teachers[0].heldout)
        effects, record = effect_on_lists(model, teachers, lists), {}
        for teacher in teachers:
            with teacher.acting(model):
                own = behaviour(model, trait, system_prompt=teacher.prompt)
            record[teacher.name] = {"effect_on_lists": effects[teacher.name], "own": own}
        return record

    return once(run.directory / "samples" / "teachers.json", make)
