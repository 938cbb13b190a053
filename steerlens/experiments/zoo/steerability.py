"""What can be said of a prompt before any student is trained: how far it is a vector, and how far that vector steers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens.experiments.rates import Record
from steerlens.files import write_json
from steerlens.models.identity import model_name
from steerlens.models.loading import load_model
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait, preference_trait
from steerlens.vectors.analysis import PromptAnalysis, analyze_prompt
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import Layers
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.probe import Probe
from steerlens.vectors.sweep import LayerSweep, Method, SweepPoint
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LAYERS: Layers = "best"
N_QUESTIONS = 128
"""Number tasks behind each mean difference."""


@dataclass(frozen=True)
class Examination:
    """A prompt to examine on a model, and the trait that it is meant to give."""

    name: str
    model: str
    prompt: str
    trait: str
    strengths: tuple[float, ...]
    fit: FitConfig
    vector: Path

    @property
    def record_path(self) -> Path:
        """Written last, beside the prompt's mean difference."""
        return self.vector.with_suffix(".json")


def examine(prompt: Examination) -> None:
    """Analyse the prompt, find its clean peak, and write what is known of it."""
    model = load_model(prompt.model)
    trait = preference_trait(prompt.trait, model)
    found = analyze_prompt(model, prompt.prompt, trait=trait, known={}, layers=LAYERS, config=prompt.fit)
    settings = steered_settings(model, prompt.prompt, trait, found, prompt.strengths, prompt.fit)
    settings.vectors["mean_difference"].save(prompt.vector)
    write_json(prompt.record_path, {"name": prompt.name, **ingredients(found), **peak(settings)})


def steered_settings(
    model: "TransformerBridge",
    prompt: str,
    trait: Trait,
    found: PromptAnalysis,
    strengths: Sequence[float],
    config: FitConfig,
) -> LayerSweep:
    """The mean difference at every layer and the fitted vector at its own, at every strength; only behaviour is measured."""
    questions = number_prompts(N_QUESTIONS, model, seed=config.seed)
    vectors: dict[Method, SteeringVector] = {
        "mean_difference": diff_in_means(model, prompt, questions=questions),
        "fitted": found.vector,
    }
    probe, nan = Probe(model, trait, None, config), float("nan")
    points = tuple(
        SweepPoint(method, layer, strength, nan, nan, nan, probe.behaviour(strength * vector.at(layer)))
        for method, vector in vectors.items()
        for layer in vector.layers
        for strength in strengths
    )
    return LayerSweep(model_name(model), prompt, trait.name, points, found.plain, found.prompted, vectors)


def peak(settings: LayerSweep) -> Record:
    """The clean peak: the highest rate that a clean setting reaches, the plain rate where none is clean."""
    best = settings.clean_peak
    if best is None:
        return {"steerability": settings.plain.rate, "peak": None}
    return {
        "steerability": best.behaviour.rate,
        "peak": {"method": best.method, "layer": best.layer, "strength": best.strength},
    }


def ingredients(found: PromptAnalysis) -> Record:
    """What `analyze_prompt` weighs, and its verdict."""
    metrics, numbers = found.vector.metrics, found.numbers
    return {
        "kl_explained": metrics["kl_explained"],
        "kl_explained_mean_difference": metrics["kl_explained_mean_difference"],
        "kl_prompt": metrics["kl_prompt"],
        "numbers": 0.0 if numbers is None else numbers.prompt,
        "numbers_vector": 0.0 if numbers is None else numbers.vector,
        "numbers_correlation": 0.0 if numbers is None else numbers.correlation,
        "plain_rate": found.plain.rate,
        "prompted_rate": found.prompted.rate,
        "steered_rate": found.steered.rate,
        "log_odds_above_plain": found.steered.log_odds_above_plain,
        "damage": found.steered.damage,
        "verdict": found.transfer.verdict,
    }
