"""Which layer, which strength, and is there a clean setting at all?

Every method's direction is tried at every layer and strength: how much of the prompt's effect it explains, what
it does to the trait, and what else it breaks. A setting is *clean* when the trait goes up while negated and
off-topic questions keep their answers (the specificity gate of arXiv 2606.00995, section 4) and the model still
writes as it did.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.cost import Cost
from steerlens.memory import bytes_a_row
from steerlens.models.bridge import check_layer, frozen, huggingface_model
from steerlens.models.identity import model_name
from steerlens.short import cut, some
from steerlens.text.chat import Chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRows
from steerlens.vectors.fit_quality import explained_with_interval, random_directions
from steerlens.vectors.fitting import moving
from steerlens.vectors.layer_fits import fit_each_layer
from steerlens.vectors.means import diff_in_means, principal_difference
from steerlens.vectors.probe import Behaviour, Probe
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Method = Literal["fitted", "mean_difference", "principal_difference", "random"]

SWEEP_STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
LEAK = 0.10
"""Largest rate of the trait at negated and off-topic questions in a clean setting (the paper's)."""

COHERENT = 0.5
"""Smallest share of the prompted model's coherence, and of the plain model's answer mass, in a clean setting."""

DAMAGE = (1.25, 0.05)
"""Largest damage in a clean setting where there is no trait: so many times the prompt's own, or so many nats a token."""


@dataclass(frozen=True)
class SweepPoint:
    """One setting: strength times the method's direction at one layer, added at the positions of the fit.

    Args:
        kl_explained: on held-out rows, for the report; `low` and `high` are the ends of its 95 % interval.
        validation, validation_low: the same on validation rows, for choices, and the lower end of its interval; NaN where it
            was not measured.
    """

    method: Method
    layer: int
    strength: float
    kl_explained: float
    low: float
    high: float
    behaviour: Behaviour
    validation: float = float("nan")
    validation_low: float = float("nan")


@dataclass(frozen=True)
class LayerSweep:
    """Every setting that was tried, and the models to compare with: without vector, and with the prompt."""

    model: str
    prompt: str
    trait: str | None
    points: tuple[SweepPoint, ...]
    plain: Behaviour
    prompted: Behaviour
    vectors: dict[Method, SteeringVector]

    def __repr__(self) -> str:
        methods = list(dict.fromkeys(point.method for point in self.points))
        layers = sorted({point.layer for point in self.points})
        head = f"LayerSweep: {len(self.points)} settings ({some(methods)}; layers {some(layers)}) on {self.model}. "
        return cut(head + (self.recommendation() if self.points else ""))

    def why_not_clean(self, point: SweepPoint) -> str | None:
        """What keeps a setting from being clean; None where it is."""
        ours, plain = point.behaviour, self.plain
        if self.trait is None:
            if not point.validation_low > 0:
                return "it explains nothing of the prompt on validation rows"
            if not ours.damage <= max(DAMAGE[0] * self.prompted.damage, DAMAGE[1]):
                return (
                    f"it changes unrelated predictions by {ours.damage:.2f} nats, more than the prompt does "
                    f"({self.prompted.damage:.2f})"
                )
        else:
            if not ours.mass >= COHERENT * plain.mass:
                return f"the questions are hardly answered any more (mass {ours.mass:.2f}, before {plain.mass:.2f})"
            if not (ours.log_odds_above_plain > 0 and ours.rate >= min(2 * plain.rate, (1 + plain.rate) / 2)):
                return f"the trait does not go up (rate {ours.rate:.2f}, without vector {plain.rate:.2f})"
            where, leak = _worst_leak(ours)
            if leak > LEAK:
                return f"the trait shows at {where} questions ({leak:.2f})"
        return (
            None
            if ours.coherence >= COHERENT * self.prompted.coherence
            else f"it no longer writes sense (coherence {ours.coherence:.2f})"
        )

    @property
    def clean_peak(self) -> SweepPoint | None:
        """The clean setting with the highest rate (without a trait: the highest kl_explained on validation rows)."""
        clean = [point for point in self.points if point.method != "random" and self.why_not_clean(point) is None]
        return max(clean, key=self._goodness, default=None)

    def recommended(self) -> SteeringVector | None:
        """The vector of the clean peak, its strength multiplied in."""
        peak = self.clean_peak
        return None if peak is None else peak.strength * self.vectors[peak.method].at(peak.layer)

    def recommendation(self) -> str:
        """The clean peak and why, or why there is none, in words."""
        peak = self.clean_peak
        if peak is None:
            best = max((point for point in self.points if point.method != "random"), key=self._selectivity)
            return (
                f"No clean setting: none of {len(self.points)} moves the model toward the prompt without breaking "
                f"something else. The best compromise is the {_setting(best)}: {self._achieved(best)}. It is not clean "
                f"because {self.why_not_clean(best)}."
            )
        return (
            f"Use the {_setting(peak)}: {self._achieved(peak)}. Unrelated predictions change by "
            f"{peak.behaviour.damage:.2f} nats a token (the prompt: {self.prompted.damage:.2f}), coherence "
            f"{peak.behaviour.coherence:.2f}."
        )

    def _achieved(self, point: SweepPoint) -> str:
        ours = point.behaviour
        explained = f"it explains {point.kl_explained:.0%} of the prompt's effect ({point.low:.0%} to {point.high:.0%})"
        if self.trait is None:
            return explained
        leaks = {"at negated questions": ours.negated, "off topic": ours.off_topic}
        return (
            f"{explained} and brings the rate of {self.trait!r} from {self.plain.rate:.2f} to {ours.rate:.2f} (the prompt: "
            f"{self.prompted.rate:.2f}), "
            + "".join(f"{where} to {rate:.2f}, " for where, rate in leaks.items() if not np.isnan(rate))
            + f"with answer mass {ours.mass:.2f}"
        )

    def _selectivity(self, point: SweepPoint) -> tuple[bool, float]:
        """Whether it still writes sense, and how much more the trait shows where it should than where it should not."""
        ours = point.behaviour
        cost = ours.damage if self.trait is None else _worst_leak(ours)[1]
        return self._is_coherent(ours), float(np.nan_to_num(self._goodness(point) - cost, nan=-np.inf))

    def _is_coherent(self, behaviour: Behaviour) -> bool:
        return behaviour.coherence >= COHERENT * self.prompted.coherence

    def _goodness(self, point: SweepPoint) -> float:
        """How much of what is wanted a setting brings."""
        return point.validation if self.trait is None else point.behaviour.rate


def _worst_leak(behaviour: Behaviour) -> tuple[str, float]:
    """Where the trait shows most that it should not, and its rate there; 0 where a trait asks no such questions."""
    leaks = {"negated": behaviour.negated, "off-topic": behaviour.off_topic}
    return max(((where, float(np.nan_to_num(rate))) for where, rate in leaks.items()), key=lambda leak: leak[1])


def _setting(point: SweepPoint) -> str:
    return f"{point.method.replace('_', ' ')} direction at layer {point.layer}, strength {point.strength:g}"


@checked
def sweep_layers(
    model: "TransformerBridge",
    prompt: str,
    *,
    trait: Trait | None = None,
    layers: Sequence[int] | None = None,
    strengths: Sequence[float] = SWEEP_STRENGTHS,
    questions: Sequence[str | Chat] | None = None,
    unrelated: Sequence[str | Chat] | None = None,
    config: FitConfig | None = None,
) -> LayerSweep:
    """Try every method at every layer and strength, and judge what it does and what it breaks.

    Args:
        prompt: the system prompt.
        trait: whose questions show what the prompt does; None judges by predictions alone.
        layers: None tries every layer.
        questions: user turns on which directions are made and kl_explained is measured; None takes number tasks.
        unrelated: user turns that the prompt is not about; None takes questions of fact and ordinary requests.
        config: of the fits; each layer gets a quarter of the steps.

    Raises:
        ValueError: as `fit_prompt_vector`; or no strengths, or no unrelated questions.
    """
    config = config or FitConfig()
    layers = list(range(model.cfg.n_layers)) if layers is None else [check_layer(model, layer) for layer in layers]
    if not layers or not strengths:
        raise ValueError(f"Got layers={layers} and strengths={strengths}. Give at least one of each.")
    questions = number_prompts(2 * config.n_rows, model, seed=config.seed) if questions is None else questions
    data = FitData.sample(model, prompt, questions, config)
    probe = Probe(model, trait, unrelated, config)
    with frozen(model):
        vectors = _directions(model, prompt, data, layers, replace(config, steps=max(1, config.steps // 4)))
        points = tuple(_points(model, data, probe, vectors, strengths, config))
    return LayerSweep(
        model=model_name(model),
        prompt=prompt,
        trait=None if trait is None else trait.name,
        points=points,
        plain=probe.behaviour(),
        prompted=probe.behaviour(system_prompt=prompt),
        vectors=vectors,
    )


def _directions(
    model: "TransformerBridge", prompt: str, data: FitData, layers: Sequence[int], config: FitConfig
) -> dict[Method, SteeringVector]:
    """Each method's direction at every layer; random ones have the mean difference's norm."""
    with tqdm(total=len(layers) * config.steps, desc="fits", unit="step", leave=False) as bar:
        fits = fit_each_layer(model, data, layers, config, on_step=moving(bar, model, data))
    mean = diff_in_means(model, prompt, questions=data.train_questions, layers=layers)
    return {
        "fitted": replace(
            mean,
            directions=torch.cat([fit.directions for fit in fits]),
            source=replace(
                mean.source, method=f"fitted by {config.objective}, each layer on its own", positions=config.positions
            ),
        ),
        "mean_difference": mean,
        "principal_difference": principal_difference(model, prompt, questions=data.train_questions, layers=layers),
        "random": replace(
            mean,
            directions=random_directions(mean.directions, seed=config.seed)[0],
            source=replace(mean.source, method="Gaussian, with the norm of the mean difference"),
        ),
    }


def _points(
    model: "TransformerBridge",
    data: FitData,
    probe: Probe,
    vectors: dict[Method, SteeringVector],
    strengths: Sequence[float],
    config: FitConfig,
) -> Iterator[SweepPoint]:
    layers = next(iter(vectors.values())).layers
    total, hf = len(layers) * len(vectors) * len(strengths), huggingface_model(model)
    n_bytes = max(
        len(rows.batch) * bytes_a_row(hf, rows.batch.tokens.shape[1]) for rows in (*data.heldout, *data.validation)
    )
    with tqdm(total=total, desc="sweep", unit="setting", leave=False) as progress:
        cost = Cost(progress, f"{total:,} settings of layer, method and strength", n_parts=total, n_bytes=n_bytes)
        for layer in layers:
            heldout, validation = (_Explained(model, layer, rows, config) for rows in (data.heldout, data.validation))
            for method, vector in vectors.items():
                for strength in strengths:
                    setting = strength * vector.at(layer)
                    explained, (chosen_by, low, _) = heldout.by(setting), validation.by(setting)
                    yield SweepPoint(method, layer, strength, *explained, probe.behaviour(setting), chosen_by, low)
                    progress.update()
                    cost.after(progress.n)


class _Explained:
    """kl_explained of vectors at one layer on some rows, with its 95 % interval."""

    def __init__(self, model: "TransformerBridge", layer: int, rows: Sequence[FitRows], config: FitConfig) -> None:
        self._rows, self._seed = ResumedRows(model, [layer], rows, config.positions), config.seed
        self._plain = self._rows.row_kl(self._rows.nothing)[:, 0]

    def by(self, vector: SteeringVector) -> tuple[float, float, float]:
        steered = self._rows.row_kl(vector.directions)[:, 0]
        return explained_with_interval(steered, self._plain, self._rows.questions, seed=self._seed)
