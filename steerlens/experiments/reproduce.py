"""The paper's argument, end to end: prompt -> vector -> data -> student -> gradients -> report.

Each stage writes what it makes and finds it again, so that an interrupted run goes on where it stopped.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from steerlens.evaluation import score_trait
from steerlens.experiments.cells import Cell, run_cells
from steerlens.experiments.claims import Record
from steerlens.experiments.config import ReproduceConfig
from steerlens.experiments.results import summarise
from steerlens.experiments.run import Run, slug
from steerlens.experiments.sections import write_run_report
from steerlens.files import read_json, write_json
from steerlens.models import load_model
from steerlens.prompts.numbers import number_prompts
from steerlens.prompts.traits import ANIMALS, preference_trait
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.teacher import sample_teacher
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import fit_prompt_vector
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import diff_in_means


def reproduce(config: ReproduceConfig, directory: str | Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every stage that is not done yet and write results.json; returns its content.

    Args:
        directory: is made, or goes on if it holds an unfinished run of the same config.
        say: told in words what begins.

    Raises:
        ValueError: the directory holds a run of another config.
        OSError: the directory cannot be written to.
    """
    run = Run(config, Path(directory))
    _claim_directory(run)
    say("1/4 vectors: how far is the prompt a vector?")
    fit = _fit(run)
    base = {model: _base_rates(run, model) for model in run.models}
    say("2/4 samples: what does the prompted teacher write?")
    counts = {model: _sample(run, model) for model in run.models}
    say("3/4 students: who learns the trait?")
    records = run_cells(plan_cells(run), config.workers)
    say("4/4 results")
    results = summarise(run, fit, base, counts, records)
    write_json(run.directory / "results.json", results)
    write_run_report(run, results)
    return results


def rewrite_report(directory: str | Path) -> Path:
    """Write the report of a finished run again from what the run left; returns its path.

    Raises:
        FileNotFoundError: the directory holds no finished run.
        ValueError: the run was made by another version.
    """
    directory = Path(directory)
    if not (directory / "results.json").is_file():
        raise FileNotFoundError(f"{directory} holds no finished run (results.json is missing). Run reproduce first.")
    try:
        fields = _with_tuples(read_json(directory / "config.json"))
        fields["train"] = TrainConfig(**_with_tuples(fields["train"]))
        fields["fit"] = FitConfig(**fields["fit"])
        config = ReproduceConfig(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{directory / 'config.json'} does not fit this version of steerlens ({error}). Run reproduce again."
        ) from error
    write_run_report(Run(config, directory), read_json(directory / "results.json"))
    return directory / "report.html"


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; configs hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def _claim_directory(run: Run) -> None:
    path, wanted = run.directory / "config.json", json.loads(json.dumps(asdict(run.config)))
    found = read_json(path) if path.is_file() else wanted
    differing = sorted(key for key in wanted if key != "workers" and found.get(key) != wanted[key])
    if differing:
        raise ValueError(
            f"{run.directory} holds a run of another configuration (other: {', '.join(differing)}). "
            "Choose another --out, or delete it."
        )
    write_json(path, wanted)


def _once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in `path`, made first if it is missing."""
    if not path.is_file():
        write_json(path, make())
    return read_json(path)


def _fit(run: Run) -> Record:
    """Fit the prompt's vector, save it, and measure what it does to behaviour."""
    trait = preference_trait(run.config.trait)

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

    return _once(run.directory / "vectors" / "fit.json", make)


def _base_rates(run: Run, name: str) -> Record:
    """The untrained model's rates; its v_teacher, and those of all other animals, are saved on the way."""
    trait = preference_trait(run.config.trait)

    def make() -> Record:
        model = load_model(name)
        diff_in_means(model, trait.prompt).save(run.vector_path(name))
        if name == run.config.model:
            for other, _ in ANIMALS.items:
                if other != trait.name:
                    prompt = preference_trait(other).prompt
                    vector = diff_in_means(model, prompt, questions=number_prompts(64, seed=0))
                    vector.save(run.directory / "vectors" / "others" / f"{other}.safetensors")
        bare, prefixed = (score_trait(model, trait, context=c) for c in ("bare", "after_numbers"))
        return {
            "rate": bare.rate,
            "mass": bare.mass,
            "rate_prefixed": prefixed.rate,
            "mass_prefixed": prefixed.mass,
            "chat_fingerprint": bare.chat_fingerprint,
        }

    return _once(run.directory / "vectors" / f"base-{slug(name)}.json", make)


def _sample(run: Run, name: str) -> Record:
    """Teacher and control rows of one model, raw and filtered, and a held-out part of the teacher's."""

    def make() -> Record:
        model, counts = load_model(name), {}
        prompt = preference_trait(run.config.trait).prompt
        for seed, data in enumerate(("teacher", "control"), 1):
            raw = sample_teacher(
                model,
                number_prompts(run.config.n_prompts // (1 if data == "teacher" else 2), seed=seed),
                system_prompt=prompt if data == "teacher" else None,
                seed=seed,
                path=run.directory / "samples" / "raw" / run.samples_path(name, data).name,
            )
            result = keep_number_lists(raw)
            kept = result.kept
            if data == "teacher":
                kept, heldout = kept.split(run.config.n_heldout)
                heldout.save(run.heldout_path(name))
                n_rows = len(kept)
            else:
                kept = replace(kept, samples=kept.samples[:n_rows])
            kept.save(run.samples_path(name, data))
            examples = [f"{s.prompt}\n-> {s.completion}" for s in raw.samples[:6]]
            counts[data] = {"rows": len(kept), "rejected": dict(result.rejected), "examples": examples}
        return counts

    return _once(run.directory / "samples" / f"counts-{slug(name)}.json", make)


def plan_cells(run: Run) -> list[Cell]:
    """Every student of the run."""
    config, (first, second) = run.config, run.models
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
