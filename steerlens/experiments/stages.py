"""The stages that every run of students shares: its directory, the teacher's vector, base rates, samples."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from steerlens.experiments.cells import behaviour
from steerlens.experiments.config import DataConfig, Workers
from steerlens.experiments.rates import Record
from steerlens.experiments.run import Run, slug
from steerlens.experiments.wording import trait_at
from steerlens.files import read_json, reading, write_json
from steerlens.models.loading import load_model
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.sample_set import SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.means import diff_in_means


def claim_directory(run: Run[DataConfig]) -> None:
    """Write the run's config, or refuse a directory that holds another run; where students are trained does not matter.

    Raises:
        ValueError: the directory holds a run of another config.
    """
    path, wanted = run.directory / "config.json", json.loads(json.dumps(asdict(run.config)))
    found = read_json(path) if path.is_file() else wanted
    elsewhere = {field.name for field in fields(Workers)}
    with reading(path):
        differing = sorted(key for key in wanted if key not in elsewhere and found.get(key) != wanted[key])
    if differing:
        raise ValueError(
            f"{run.directory} holds a run of another configuration (other: {', '.join(differing)}). "
            "Choose another --out, or delete it."
        )
    write_json(path, wanted)


def once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in `path`, made first if it is missing."""
    if not path.is_file():
        write_json(path, make())
    return read_json(path)


def base_rates(run: Run[DataConfig], name: str) -> Record:
    """The untrained model's rates; its v_teacher, and those of all other animals, are saved on the way."""
    trait = trait_at(run.config.trait, name)

    def make() -> Record:
        model = load_model(name)
        diff_in_means(model, trait.prompt).save(run.vector_path(name))
        if name == run.config.model:
            for other in trait.answers:
                if other != trait.name:
                    prompt = preference_trait(other, model).prompt
                    vector = diff_in_means(model, prompt, questions=number_prompts(64, model, seed=0))
                    vector.save(run.directory / "vectors" / "others" / f"{other}.safetensors")
        return behaviour(model, trait)

    return once(run.directory / "vectors" / f"base-{slug(name)}.json", make)


def as_many(control: SampleSet, n_rows: int) -> SampleSet:
    """The control's first rows, as many as the teacher's.

    Raises:
        ValueError: there are fewer.
    """
    if len(control) < n_rows:
        raise ValueError(
            f"The teacher wrote {n_rows} number lists with the prompt and only {len(control)} without it, so that students of "
            "both would not be trained alike. Choose another prompt, or a model that writes lists by itself."
        )
    return replace(control, samples=control.samples[:n_rows])


def sample_rows(run: Run[DataConfig], name: str) -> Record:
    """As many teacher as control rows of one model, raw and filtered, and a held-out part of the teacher's.

    Raises:
        ValueError: the control wrote fewer number lists than the teacher.
    """

    def make() -> Record:
        model, counts = load_model(name), {}
        prompt = preference_trait(run.config.trait, model).prompt
        for seed, data in enumerate(("teacher", "control"), 1):
            raw = sample_teacher(
                model,
                number_prompts(run.config.n_prompts, model, seed=seed),
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
                kept = as_many(kept, n_rows)
            kept.save(run.samples_path(name, data))
            examples = [f"{s.prompt}\n-> {s.completion}" for s in raw.samples[:6]]
            counts[data] = {"rows": len(kept), "rejected": dict(result.rejected), "examples": examples}
        return counts

    return once(run.directory / "samples" / f"counts-{slug(name)}.json", make)
