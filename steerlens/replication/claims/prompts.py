"""Is a prompt a vector? Personas, and the prompts of people who use chat models, in number tasks and in questions.

Each prompt gets the vector that fits its predictions best, next to the mean difference, the principal direction and controls,
and is asked how far its vector carries from one kind of text to the other. Reference: arXiv 2606.00995, section 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.survey import NUMBERS, QUESTIONS, InContext, Surveyed, surveys

N_PERSONAS = {"smoke": 1, "quick": 8, "full": 24}
N_OF_KIND = {"smoke": 1, "quick": 2, "full": 3}
TEXTS = (NUMBERS, QUESTIONS)


@dataclass(frozen=True)
class OfKind:
    """Means over the prompts of one kind in one kind of text; `fitted` with its interval over prompts."""

    n: int
    fitted: sl.Interval
    joint: float
    mean_difference: float
    shuffled: float
    carried: float
    kl_prompt: float
    consistency: float
    principal: float


@dataclass(frozen=True)
class Prompts:
    """Every prompt, the kinds by kind of text, and what can be read off beforehand: rank correlations with kl_explained."""

    prompts: dict[str, Surveyed]
    kinds: dict[str, dict[str, OfKind]]
    predicted: dict[str, dict[str, float]]


MEANS = ("joint", "mean_difference", "shuffled", "carried", "kl_prompt", "consistency", "principal")
RATES = ("plain", "prompted", "steered", "negated")
BEFOREHAND: dict[str, Callable[[InContext], float]] = {
    "consistency of the shift": lambda one: one.consistency,
    "kl_explained of the mean difference": lambda one: one.mean_difference,
    "size of the prompt's effect": lambda one: one.kl_prompt,
}
"""What a user can know of a prompt without a fit."""


def run(lab: Lab) -> Findings:
    """Survey every prompt, and sum up by kind."""
    prompts = lab.run(surveys(lab, N_PERSONAS[lab.preset], N_OF_KIND[lab.preset]), "prompts")
    kinds = list(dict.fromkeys(one.kind for one in prompts.values()))
    every = list(prompts.values())
    measures = Prompts(
        prompts=prompts,
        kinds={
            text: {kind: of_kind([one.by_text[text] for one in every if one.kind == kind]) for kind in kinds}
            for text in TEXTS
        },
        predicted={
            text: {name: predicted([one.by_text[text] for one in every], tell) for name, tell in BEFOREHAND.items()}
            for text in TEXTS
        },
    )
    return _conclude(lab, measures)


def of_kind(found: Sequence[InContext]) -> OfKind:
    """The means of some prompts."""
    fitted = sl.mean_interval(np.array([one.fitted.value for one in found]))
    return OfKind(len(found), fitted, **{name: float(np.mean([getattr(one, name) for one in found])) for name in MEANS})


def of_text(measures: Prompts, text: str) -> dict[str, InContext]:
    """Every prompt in one kind of text."""
    return {name: one.by_text[text] for name, one in measures.prompts.items()}


def predicted(found: Sequence[InContext], tell: Callable[[InContext], float]) -> float:
    """Rank correlation over prompts of what is known beforehand with the fitted vector's kl_explained."""
    known, fitted = np.array([tell(one) for one in found]), np.array([one.fitted.value for one in found])
    return sl.correlation(known, fitted, ranks=True)


def make_claims(measures: Prompts) -> list[Claim]:
    """The claims; shares are over prompts and both kinds of text."""
    every = [one.by_text[text] for one in measures.prompts.values() for text in TEXTS]
    at_questions = list(of_text(measures, QUESTIONS).values())
    carried = [one.carried / one.fitted.value for one in at_questions if one.fitted.value > 0]
    kinds, nan = measures.kinds[QUESTIONS], float("nan")
    rule = kinds["rule"].fitted.value if "rule" in kinds else nan
    return [
        above("personas are vectors", kinds["persona"].fitted.value, 0.5),
        above("fit beats mean difference", float(np.mean([one.fitted.value > one.mean_difference for one in every])), 0.9),
        above("fit beats controls", float(np.mean([one.fitted.low > max(one.random, one.shuffled) for one in every])), 0.9),
        above("rules are less of a vector", kinds["persona"].fitted.value - rule, 0.0),
        above("vectors carry to number tasks", float(np.mean(carried)) if carried else nan, 0.5),
        above("consistency tells", measures.predicted[QUESTIONS]["consistency of the shift"], 0.5),
    ]  # fmt: skip


def _conclude(lab: Lab, measures: Prompts) -> Findings:
    header = ("kind", "where", "prompts", "fitted, best layer", "jointly", "mean difference", "shuffled", "carried",
              "effect, nats", "consistency", "PCA, cosine")  # fmt: skip
    rows = [
        (kind, text, one.n, str(one.fitted), *(getattr(one, name) for name in MEANS))
        for text, kinds in measures.kinds.items()
        for kind, one in sorted(kinds.items(), key=lambda item: -item[1].fitted.value)
    ]  # fmt: skip
    single = [
        (name, text, one.layer, one.fitted.text(2), one.joint, one.mean_difference, one.shuffled, one.carried,
         one.consistency, one.converged, " ".join(one.promoted))
        for text in TEXTS
        for name, one in sorted(of_text(measures, text).items(), key=lambda item: -item[1].fitted.value)
    ]  # fmt: skip
    rates = {name: one.rates for name, one in measures.prompts.items() if one.rates is not None}
    points = {
        kind: {
            name: (one.consistency, one.fitted.value)
            for name, one in of_text(measures, QUESTIONS).items()
            if measures.prompts[name].kind == kind
        }
        for kind in measures.kinds[QUESTIONS]
    }
    shown = [(name, one.plain, one.prompted, one.steered, one.negated) for name, one in rates.items()]
    slots = {
        "model": lab.profile.weights, "n": len(measures.prompts), "n_kinds": len(measures.kinds[QUESTIONS]),
        "personas": measures.kinds[QUESTIONS]["persona"].fitted,
        "personas_numbers": measures.kinds[NUMBERS]["persona"].fitted, "n_traits": len(rates),
        **{name: float(np.nanmean([getattr(one, name) for one in rates.values()])) for name in RATES},
        "tells": "\n".join(f"{name}, {text}: rank correlation {one:.2f}."
                           for text, found in measures.predicted.items() for name, one in found.items()),
    }  # fmt: skip
    exhibits = {
        "kinds": Exhibit(table=sl.Table(header, rows)),
        "prompts": Exhibit(table=sl.Table(
            ("prompt", "where", "layer", "fitted", "jointly", "mean difference", "shuffled", "carried", "consistency",
             "converged", "promotes"), single)),
        "beforehand": Exhibit(plots.plot_points(points, x="consistency of the shift", y="kl_explained, fitted", line=0.0)),
        "traits": Exhibit(table=sl.Table(("prompt", "plain", "prompted", "with the vector", "negated, with the vector"), shown)),
    }  # fmt: skip
    return conclude("prompts", make_claims(measures), measures, slots=slots, exhibits=exhibits)


EXPERIMENT = Experiment(
    "Is a prompt a vector, and which kinds of prompt are?", run, Prompts, {"quick": 25, "full": 100}
)
