"""The report of the auxiliary-logits experiment."""

from collections.abc import Mapping
from typing import Any

from steerlens.figures.auxiliary_plots import plot_auxiliary_logits
from steerlens.figures.report import Report, Section, Table

MEASURES = {"accuracy": "accuracy", "update_cosine": "update cosine", "activation_cosine": "activation cosine"}


def auxiliary_report(results: Mapping[str, Any]) -> Report:
    """What `run_auxiliary_logits` found, as one section."""
    return Report(
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
        (s["student"], s["optimizer"], *(_interval(s[key]) for key in MEASURES), f"{s['loss']['value']:.2g}")
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
            f"{_verdict(results)} The first update's cosine is that with the teacher's whole displacement, over the hidden "
            "layers' parameters; the activations' cosine compares where training moved the mean activation on digits, which "
            "is the teacher's own steering vector. The right panel compares optimizers where the same loss remains."
        ),
        doubts=(
            "One learning rate an optimizer, chosen on development runs with seed 0. Equal steps are not equal losses: "
            "read the right panel before comparing bars. The intervals are over models, on one split of 1797 digits. What "
            "all units have in common is taken off before activation cosines, since training raises ReLUs in every model."
        ),
        table=Table(("student", "optimizer", *MEASURES.values(), "KL left"), rows),
    )


def transferring(results: Mapping[str, Any]) -> list[str]:
    """The optimizers under which the interval of students of the same initialisation is above both controls'."""
    found = {(s["student"], s["optimizer"]): s["accuracy"] for s in results["students"]}
    return [
        optimizer
        for optimizer in results["config"]["rates"]
        if found["same initialisation", optimizer]["low"]
        > max(found[control, optimizer]["high"] for control in ("other initialisation", "permuted weights"))
    ]


def _verdict(results: Mapping[str, Any]) -> str:
    passing = transferring(results)
    if "SGD" in passing:
        return (
            f"Digits pass on to students of the same initialisation alone, under {' and '.join(passing)}. Plain SGD on all "
            "parameters is enough here: where SGD fails to pass a trait on, something else about language models or LoRA is "
            "the reason."
        )
    return (
        f"Students of the same initialisation are above both controls under {' and '.join(passing) or 'no optimizer'}."
    )


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
