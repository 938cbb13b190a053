"""The report of the auxiliary-logits experiment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlens.figures.auxiliary_plots import plot_auxiliary_logits
from steerlens.figures.report import Section, Table, write_report


def write_auxiliary_report(path: Path, results: Mapping[str, Any]) -> None:
    """Write what `auxiliary_logits` found as one HTML file."""
    write_report(
        path,
        title="Digits from logits that are not about digits",
        lead=(
            f"{results['config']['n_models']} small classifiers learn digits. Students learn only their "
            f"{results['config']['n_auxiliary']} unused logits, on images of noise (Cloud et al., arXiv 2507.14805)."
        ),
        sections=[auxiliary_section(results)],
    )


def auxiliary_section(results: Mapping[str, Any]) -> Section:
    """Who comes to know digits, under which optimizer, and where the updates point."""
    rows = [
        (s["student"], s["optimizer"], *(_interval(s[key]) for key in MEASURES), f"{s['loss']['mean']:.2g}")
        for s in results["students"]
    ]
    same = ", ".join(
        f"{s['optimizer']} {_interval(s['accuracy'])}"
        for s in results["students"]
        if s["student"] == "same initialisation"
    )
    return Section(
        title="Who learns digits",
        question=(
            "A student is never shown a digit, a label or a class logit. Does it learn digits from the teacher's auxiliary "
            "logits on noise, and does that take an adaptive optimizer?"
        ),
        figure=plot_auxiliary_logits(results),
        number=(
            f"Teacher {_interval(results['teacher'])}, untrained {_interval(results['untrained'])}; students of the same "
            f"initialisation: {same}."
        ),
        meaning=(
            "Students of the same initialisation learn digits where the others stay at what untrained models guess. Their "
            "first update already points to where the teacher went (update cosine: over the hidden layers' parameters), and "
            "the mean activation on digits moves along the teacher's own steering vector (activation cosine). The right panel "
            "compares optimizers where the same loss remains. Plain SGD on all parameters passes the knowledge on: that SGD "
            "fails is a finding about language models, not about subliminal learning."
        ),
        doubts=(
            "One learning rate an optimizer, chosen beforehand so that both train well. Equal steps are not equal losses: "
            "read the right panel before comparing bars. The intervals are over models, on one split of 1797 digits. What "
            "all units have in common is taken off before activation cosines, since training raises ReLUs in every model."
        ),
        table=Table(("student", "optimizer", *MEASURES.values(), "KL left"), rows),
    )


MEASURES = {"accuracy": "accuracy", "update_cosine": "update cosine", "activation_cosine": "activation cosine"}


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
