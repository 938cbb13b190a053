"""The report of `sweep_layers`: which layer, which strength, and is there a clean setting at all?"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.figures.vector_plots import plot_sweep
from steerlens.reports.analysis import measured
from steerlens.vectors.probe import Behaviour
from steerlens.vectors.sweep import COHERENT, DAMAGE, LEAK, LayerSweep


def write_sweep_report(path: str | Path, sweep: LayerSweep) -> None:
    """Write what `sweep_layers` found as one HTML file."""
    write_report(
        path,
        Report(
            "Which layer and which strength?",
            f"Model: {sweep.model}. Prompt: {sweep.prompt}",
            [_recommendation(sweep), _settings(sweep)],
        ),
    )


def sweep_results(sweep: LayerSweep) -> dict[str, Any]:
    """Every number of a sweep, for a JSON file; directions are left out."""
    peak = sweep.clean_peak
    return {
        "model": sweep.model,
        "prompt": sweep.prompt,
        "trait": sweep.trait,
        "recommendation": sweep.recommendation(),
        "recommended": None
        if peak is None
        else {"method": peak.method, "layer": peak.layer, "strength": peak.strength},
        "sources": {method: asdict(vector.source) for method, vector in sweep.vectors.items()},
        "plain": asdict(sweep.plain),
        "prompted": asdict(sweep.prompted),
        "points": [{**asdict(point), "why_not_clean": sweep.why_not_clean(point)} for point in sweep.points],
    }


def _recommendation(sweep: LayerSweep) -> Section:
    gate = (
        f"with its trait raised, at most {LEAK:.0%} of it at negated and off-topic questions, and at least {COHERENT:.0%} of "
        "the answer mass"
        if sweep.trait is not None
        else "it explains something of validation rows, and changes unrelated predictions by at most "
        f"{DAMAGE[0]:g} times what the prompt does, or {DAMAGE[1]:g} nats"
    )
    chosen = (
        "The best of many settings is picked by the behaviour that is shown, which will look a little worse on new questions. "
        "kl_explained has no part in the choice."
        if sweep.trait is not None
        else "The best of many settings is picked by kl_explained on validation rows, so that the held-out number that is shown "
        "has no part in the choice. Damage and coherence have, and will look a little worse on new questions."
    )
    return Section(
        title="The best clean setting",
        question=(
            "Every method's direction is added at every layer and strength. What does each explain, what does it do, and "
            "what does it break?"
        ),
        figure=plot_sweep(sweep),
        number=sweep.recommendation(),
        meaning=(
            f"Blue is good, red is bad, and a black frame is a clean setting: {gate}, while the model still writes sense "
            f"(coherence at least {COHERENT:g}). kl_explained is that of held-out rows: 1 is the prompt itself, 0 no vector. "
            "Random directions have the mean difference's norm and are never recommended."
        ),
        doubts=(
            f"{chosen} The gate's limits are conventions, and there are few negated and off-topic questions. Where no setting "
            "is clean, one vector may be the wrong tool for this prompt."
        ),
    )


def _settings(sweep: LayerSweep) -> Section:
    shown = measured(sweep.plain)
    rows = [
        (name, "", "", "", *_two_digits(behaviour, shown), "")
        for name, behaviour in (("no vector", sweep.plain), ("the prompt", sweep.prompted))
    ]
    for point in sorted(sweep.points, key=lambda point: (point.method, point.layer, point.strength)):
        setting = (point.method.replace("_", " "), str(point.layer), f"{point.strength:g}", f"{point.kl_explained:.2f}")
        rows.append((*setting, *_two_digits(point.behaviour, shown), sweep.why_not_clean(point) or "clean"))
    clean = sum(sweep.why_not_clean(point) is None for point in sweep.points if point.method != "random")
    tried = sum(point.method != "random" for point in sweep.points)
    return Section(
        title="All settings",
        question="What keeps each setting from being clean?",
        figure=None,
        number=f"{clean} of {tried} settings are clean; {len(sweep.points) - tried} more are of random directions.",
        meaning=(
            "The first reason that applies is named; others may apply as well. Intervals are in the figure's hover texts and "
            "in results.json."
        ),
        doubts="",
        table=Table(
            ("method", "layer", "strength", "kl_explained", *shown, "clean, or what keeps it from that"),
            rows,
        ),
    )


def _two_digits(behaviour: Behaviour, shown: list[str]) -> list[str]:
    return [f"{getattr(behaviour, name):.2f}" for name in shown]
