"""Is the vector the model's own? Students of another initialisation, students of the same one trained further, and losses.

Reference: arXiv 2606.00995, section 4 and appendix H. Each stage writes what it makes and finds it again, so that an
interrupted run goes on where it stopped.
"""

from dataclasses import asdict
from pathlib import Path

from steerlens.experiments.cells import behaviour, run_cell
from steerlens.experiments.cross_model.config import CrossModelConfig
from steerlens.experiments.cross_model.loss_matrix import at_best_strength, compare, loss_reductions, random_reduction
from steerlens.experiments.cross_model.report import cross_model_report
from steerlens.experiments.cross_model.results import FURTHER, OTHER, PAIRS, SELF, summarise
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.planning import plan_students, plan_teacher
from steerlens.experiments.rates import Record
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import claim_directory, once
from steerlens.experiments.teacher_vectors import teacher_vectors
from steerlens.experiments.teachers import Teacher, list_tokens, require_rows, write_all
from steerlens.experiments.wording import trait_at
from steerlens.lock import alone
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts
from steerlens.text.wording import wording_of
from steerlens.vectors.controls import random_like
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.vector import SteeringVector

WAY = "fitted, all layers"
"""How each model's vector is made (`teacher_vectors.WAYS`)."""


@alone
def run_cross_model(directory: str | Path, config: CrossModelConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config, or a teacher writes too few lists.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    claim_directory(run)
    models = {SELF: config.model, OTHER: config.other_model, FURTHER: _train_further(run)}
    base = {name: _base(run, name, model) for name, model in models.items()}
    teachers = plan_teachers(run, models)
    for record in write_all(teachers.values(), config).values():
        require_rows(record)
    cells = [
        cell
        for pair in PAIRS
        for cell in plan_students(
            run,
            teachers[pair.source, pair.prompted],
            base=models[pair.student],
            vector=run.named_vector_path(f"mean {pair.student}"),
            trait=config.trait,
            role=pair.name,
        )
    ]
    students = run_jobs(cells, run_cell, config)
    matrix = _loss_matrix(run, models, teachers)
    claims, measures = summarise(config, base, students, matrix)
    return conclude(run.directory, claims, measures, cross_model_report(run, claims, measures, students))


def _train_further(run: Run[CrossModelConfig]) -> str:
    """Train all weights on the model's own unprompted answers, to tasks, preferences and facts; the checkpoint's path."""
    config, path = run.config, run.directory / "further"
    if not path.is_dir():
        model = load_model(config.model)
        words = wording_of(model)
        asked = [question for kind in words.kinds for question in words.preferences(kind)]
        asked += words.fact_questions
        tasks = number_prompts(config.n_further, words, seed=7)
        prompts = [tasks[row] if row % 2 else asked[row // 2 % len(asked)] for row in range(config.n_further)]
        own = sample_teacher(model, prompts, seed=7, path=run.directory / "samples" / "further.jsonl")
        finished = tuple(sample for sample in own if sample.finished and sample.completion.strip())
        train_student(model, SampleSet(finished, own.source), config.further).save(path)
    return str(path)


def _base(run: Run[CrossModelConfig], name: str, model_path: str) -> Record:
    """An untrained model's behaviour; its mean difference, to which students are compared, and its fitted vector are saved."""
    trait = trait_at(run.config.trait, run.config.model)

    def make() -> Record:
        model = load_model(model_path)
        diff_in_means(model, trait.prompt).save(run.named_vector_path(f"mean {name}"))
        vector = teacher_vectors(model, trait, (WAY,), run.config.fit)[WAY]
        vector.save(run.named_vector_path(f"fitted {name}"))
        return behaviour(model, trait) | {"kl_explained": vector.metrics["kl_explained"]}

    return once(run.directory / "vectors" / f"base-{name.replace(' ', '-')}.json", make)


def plan_teachers(run: Run[CrossModelConfig], models: dict[str, str]) -> dict[tuple[str, bool], Teacher]:
    """For every model a prompted teacher (True) and a control (False)."""
    prompt = trait_at(run.config.trait, run.config.model).prompt
    return {
        (name, prompted): plan_teacher(
            run,
            f"{'prompted' if prompted else 'control'} {name}",
            model=model,
            prompt=prompt if prompted else None,
        )
        for name, model in models.items()
        for prompted in (True, False)
    }


def _loss_matrix(
    run: Run[CrossModelConfig], models: dict[str, str], teachers: dict[tuple[str, bool], Teacher]
) -> dict[str, dict[str, Record]]:
    """Every model's own vector on every model's rows: what it takes off the loss of prompted rows, more than of control rows."""

    def rows(source: str, prompted: bool) -> SampleSet:
        samples = SampleSet.load(teachers[source, prompted].samples)
        return SampleSet(samples.samples[: run.config.n_scored], samples.source)

    def make() -> dict[str, dict[str, Record]]:
        matrix: dict[str, dict[str, Record]] = {}
        for extractor, path in models.items():
            model, whole = load_model(path), SteeringVector.load(run.named_vector_path(f"fitted {extractor}"))
            numbers, heldout = list_tokens(model), SampleSet.load(teachers[extractor, True].heldout)
            strength, vector = at_best_strength(model, whole, heldout, among=numbers)
            random = [random_like(vector, seed) for seed in range(run.config.n_random)]
            matrix[extractor] = {}
            for source in models:
                taught, control = rows(source, True), rows(source, False)
                reductions = (loss_reductions(model, vector, part, among=numbers) for part in (taught, control))
                found, null = compare(*reductions), random_reduction(model, random, taught, control, among=numbers)
                matrix[extractor][source] = asdict(found) | {"largest_of_random": null, "strength": strength}
        return matrix

    return once(run.directory / "loss-matrix.json", make)
