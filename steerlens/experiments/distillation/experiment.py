"""Is any vector distilled? Teachers are steered by vectors with and without a meaning, and write number lists.

Reference: arXiv 2606.00995, section 5. Each stage writes what it makes and finds it again, so that an interrupted run goes
on where it stopped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steerlens.experiments.cells import behaviour, run_cell
from steerlens.experiments.distillation.config import DistillationConfig
from steerlens.experiments.distillation.report import distillation_report
from steerlens.experiments.distillation.results import CONTROL, LOGIT_LENS, RANDOM, SEMANTIC, summarise
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.planning import plan_students, plan_teacher
from steerlens.experiments.rates import Record
from steerlens.experiments.result import ExperimentResult, conclude
from steerlens.experiments.run import Run
from steerlens.experiments.stages import base_rates, claim_directory, once
from steerlens.experiments.teacher_vectors import PromptedAnswers
from steerlens.experiments.teachers import require_rows, write_all
from steerlens.experiments.wording import trait_at
from steerlens.lock import alone
from steerlens.models.bridge import check_layer, huggingface_model
from steerlens.models.loading import load_model
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.teacher import sample_teacher
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.interventions import steer
from steerlens.vectors.layer_fits import fit_layers, frozen
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LISTS_KEPT, N_TRIED, MOST_HALVINGS = 0.3, 60, 5
"""A vector without meaning is halved until this share of the answers to so many tasks passes the filter."""


@alone
def run_distillation(directory: str | Path, config: DistillationConfig) -> ExperimentResult:
    """Run every stage that is not done yet; write results.json and report.html.

    Raises:
        ValueError: the directory holds a run of another config, a token or trait is not known, or the control writes too
            few lists.
        OSError: the directory cannot be written to.
    """
    kind = trait_at(config.trait, config.model).answers
    if other := [name for name in config.other_traits if trait_at(name, config.model).answers.keys() != kind.keys()]:
        raise ValueError(
            f"other_traits: {other[0]!r} is of another kind than {config.trait!r}, whose answers are compared."
        )
    run = Run(config, Path(directory))
    claim_directory(run)
    base = base_rates(run, config.model)
    vectors = _vectors(run)
    paths = {name: run.named_vector_path(name) for name in vectors}
    teachers = [plan_teacher(run, CONTROL), *(plan_teacher(run, name, vector=path) for name, path in paths.items())]
    writers = write_all(teachers, config)
    require_rows(writers[CONTROL])
    cells = [
        cell
        for teacher in teachers
        if writers[teacher.name]["enough"]
        for cell in plan_students(
            run,
            teacher,
            base=config.model,
            vector=paths.get(teacher.name, paths[config.trait]),
            trait=vectors.get(teacher.name, vectors[config.trait])["trait"],
        )
    ]
    students = run_jobs(cells, run_cell, config)
    claims, measures = summarise(run, base, vectors, writers, students)
    return conclude(run.directory, claims, measures, distillation_report(run, claims, measures, students))


def _vectors(run: Run[DistillationConfig]) -> dict[str, Record]:
    """Make every vector and save it; what each is, and what the model itself does when steered by it."""

    def make() -> Record:
        model, facts = load_model(run.config.model), {}
        for name, kind, trait, vector in _make_vectors(model, run.config):
            vector.save(run.named_vector_path(name))
            with steer(model, vector):
                steered = behaviour(model, preference_trait(trait, model))
            facts[name] = {
                "kind": kind,
                "trait": trait,
                "strength": 1.0,
                "norm": vector.norms[run.config.layer],
                "steered": steered,
            }
        first = SteeringVector.load(run.named_vector_path(run.config.trait))
        for strength in run.config.strengths:
            name = f"{run.config.trait} x {strength:g}"
            (strength * first).save(run.named_vector_path(name))
            with steer(model, strength * first):
                steered = behaviour(model, preference_trait(run.config.trait, model))
            facts[name] = {**facts[run.config.trait], "strength": strength, "steered": steered}
        return facts

    return once(run.directory / "vectors" / "all.json", make)


def _make_vectors(
    model: "TransformerBridge", config: DistillationConfig
) -> Iterator[tuple[str, str, str, SteeringVector]]:
    """Name, kind, the trait that is asked for, and the vector."""
    layer, norm = check_layer(model, config.layer), None
    rows = {token: _unembedding_row(model, token) for token in config.tokens}

    def vector(direction: torch.Tensor, method: str) -> SteeringVector:
        return SteeringVector((layer,), direction.detach().cpu().reshape(1, -1), VectorSource.of(model, method=method))

    for name in (config.trait, *config.other_traits):
        with frozen(model):
            answers = PromptedAnswers.sample(model, preference_trait(name, model), config.fit)
            fitted = fit_layers(model, answers.both, (layer,), config.fit).directions[0]
        norm = fitted.norm() if norm is None else norm
        yield name, SEMANTIC, name, vector(fitted, f"fitted to the prompt for {name}")
    assert norm is not None
    generator = torch.Generator().manual_seed(config.fit.seed)
    for number in range(1, config.n_random + 1):
        noise = torch.randn(model.cfg.d_model, generator=generator)
        found = vector(norm * noise / noise.norm(), "Gaussian")
        yield f"random {number}", RANDOM, config.trait, weakened(model, found)
    for token, row in rows.items():
        found = vector(norm * row / row.norm(), f"unembedding of {token!r}")
        yield f"token '{token}'", LOGIT_LENS, config.trait, weakened(model, found)


def weakened(model: "TransformerBridge", vector: SteeringVector) -> SteeringVector:
    """The vector, halved as often as it takes until the steered model answers number tasks with lists often enough."""
    prompts = number_prompts(N_TRIED, model, seed=3)
    for _ in range(MOST_HALVINGS):
        if keep_number_lists(sample_teacher(model, prompts, vector=vector, seed=3)).kept_share >= LISTS_KEPT:
            break
        vector = 0.5 * vector
    return vector


def _unembedding_row(model: "TransformerBridge", token: str) -> torch.Tensor:
    """The direction that the logit of the word's first token reads.

    Raises:
        ValueError: the tokenizer does not know the word.
    """
    ids = model.tokenizer.encode(token, add_special_tokens=False)
    if not ids or ids[0] == model.tokenizer.unk_token_id:
        raise ValueError(f"The tokenizer does not know the token {token!r}. Name others (tokens).")
    unembedding: Any = huggingface_model(model).get_output_embeddings()
    return unembedding.weight[ids[0]].float().cpu()
