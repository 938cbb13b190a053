"""The paper's argument, end to end: prompt -> vector -> data -> student -> gradients -> report.

Each stage writes what it makes and finds it again, so that an interrupted run goes on where it stopped.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from steerlens.evaluation import score_trait
from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.argument.report import argument_report
from steerlens.experiments.argument.results import summarise
from steerlens.experiments.cells import Cell, run_cell
from steerlens.experiments.claims import Claim
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.rates import Record
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run, slug
from steerlens.experiments.stages import base_rates, claim_directory, once, sample_rows
from steerlens.experiments.wording import trait_at
from steerlens.figures.report import write_report
from steerlens.files import read_json
from steerlens.lock import alone
from steerlens.models.loading import load_model
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import fit_prompt_vector
from steerlens.vectors.interventions import steer


@alone
def run_argument(directory: str | Path, config: ArgumentConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    claim_directory(run)
    fit = _fit(run)
    base = {model: base_rates(run, model) for model in config.models}
    counts = {model: sample_rows(run, model) for model in config.models}
    records = run_jobs(plan_cells(run), run_cell, config)
    claims, measures = summarise(run, fit, base, counts, records)
    return conclude(run.directory, claims, measures, argument_report(run, claims, measures))


def rewrite_report(directory: str | Path) -> Path:
    """Write the report of a finished run again from what the run left; returns its path.

    Raises:
        FileNotFoundError: the directory holds no finished run.
        ValueError: the run was made by another command or version.
    """
    directory = Path(directory)
    if not (directory / "results.json").is_file():
        raise FileNotFoundError(
            f"{directory} holds no finished run (results.json is missing). Run its experiment first."
        )
    try:
        fields = _with_tuples(read_json(directory / "config.json"))
        fields["train"] = TrainConfig(**_with_tuples(fields["train"]))
        fields["fit"] = FitConfig(**fields["fit"])
        config = ArgumentConfig(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{directory / 'config.json'} is of another command, or does not fit this version of steerlens ({error}). "
            "Run its own command again on this directory: it finds what is there, and writes the report."
        ) from error
    path = directory / "report.html"
    measures = read_json(directory / "results.json")
    claims = [Claim(**claim) for claim in measures["claims"]]
    write_report(path, argument_report(Run(config, directory), claims, measures))
    return path


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; configs hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def _fit(run: Run[ArgumentConfig]) -> Record:
    """Fit the prompt's vector, save it, and measure what it does to behaviour."""
    trait = trait_at(run.config.trait, run.config.model)

    def make() -> Record:
        model = load_model(run.config.model)
        vector = fit_prompt_vector(model, trait.prompt, config=run.config.fit)
        vector.save(run.directory / "vectors" / "fitted.safetensors")
        with steer(model, vector):
            steered, steered_prefixed = (score_trait(model, trait, context=c) for c in ("bare", "after_numbers"))
        base, prompted = score_trait(model, trait), score_trait(model, trait, system_prompt=trait.prompt)
        distance, p_value = steered.total_variation(base)
        return {
            "layer": vector.layers[0],
            **vector.metrics,
            "rate_base": base.rate,
            "rate_prompted": prompted.rate,
            "rate_steered": steered.rate,
            "rate_steered_prefixed": steered_prefixed.rate,
            "mass_steered": steered.mass,
            "total_variation_steered": distance,
            "total_variation_p": p_value,
            "summary": vector.summary(),
        }

    return once(run.directory / "vectors" / "fit.json", make)


def plan_cells(run: Run[ArgumentConfig]) -> list[Cell]:
    """Every student of the run."""
    config, (first, second) = run.config, run.config.models
    train, cells = config.train, {}

    def add(role: str, base: str, data: str, teacher: str, settings: TrainConfig, traced: bool = False) -> None:
        clip = "" if settings.clip_norm else "-noclip"
        name = (
            f"{role.replace(' ', '-')}-{slug(base)}-{settings.optimizer}-{settings.learning_rate:g}{clip}"
            f"-s{settings.seed}"
        )
        cells[name] = Cell(
            name=name,
            role=role,
            base=base,
            data=data,
            samples=run.samples_path(teacher, data),
            heldout=run.heldout_path(base),
            vector=run.vector_path(base),
            trait=config.trait,
            train=settings,
            directory=run.directory / "students" / name,
            trace=run.trace_path(name) if traced else None,
        )

    for seed in config.student_seeds:
        settings = replace(train, seed=seed)
        add("teacher data", first, "teacher", first, settings, traced=True)
        add("teacher data", second, "teacher", second, settings)
        add("control data", first, "control", first, settings, traced=True)
        add("control data", second, "control", second, settings)
        add("other initialisation", second, "teacher", first, settings)
        for rate in config.adamw_rates:
            settings = replace(train, learning_rate=rate, seed=seed)
            add("teacher data", first, "teacher", first, settings, traced=rate == train.learning_rate)
        for clip in config.sgd_clip_norms:
            for rate in config.sgd_rates:
                settings = replace(train, optimizer="sgd", learning_rate=rate, clip_norm=clip or None, seed=seed)
                add("teacher data", first, "teacher", first, settings, traced=True)
    return list(cells.values())
