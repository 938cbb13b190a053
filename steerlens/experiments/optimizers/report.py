"""The report of the optimizer comparison: from raw gradients to what decides, each step with its doubts."""

from typing import Any

from steerlens.experiments.optimizers.config import OptimizersConfig
from steerlens.experiments.optimizers.findings import against_the_paper
from steerlens.experiments.optimizers.parts import strongest
from steerlens.experiments.optimizers.results import matched_arms
from steerlens.experiments.optimizers.traces import installed_section, projections_section, tails_section
from steerlens.experiments.rates import CONTEXTS, Record, written
from steerlens.experiments.run import Run
from steerlens.figures.optimizer_plots import (
    plot_differences,
    plot_loss_curves,
    plot_pooled,
    plot_rate_over_strength,
)
from steerlens.figures.report import Report, Section, Table

LEAD = (
    "arXiv 2606.00995 (section 6) says that a trait passes only under adaptive optimizers: every activation gradient carries "
    "a small consistent component along the steering vector, rows with outlier gradients drown it, and Adam's division by "
    "each coordinate's size brings it out. This report takes that account apart on {model}: where gradients point, where "
    "steps go, how heavy the tails are, and what each optimizer does to the trait at the same held-out loss."
)


def optimizers_report(run: Run[OptimizersConfig], results: dict[str, Any]) -> Report:
    """What was measured, with the students' records and their traces, as sections."""
    return Report(
        title="Does the optimizer decide whether the trait passes?",
        lead=LEAD.format(model=run.config.model),
        sections=[
            _answer(results),
            _raw_gradients(results),
            _curves(results),
            _differences(results),
            _parts(results),
            projections_section(run, results),
            tails_section(run, results),
            installed_section(run, results),
            _what_decides(results),
            _runs(results),
        ],
    )


def _answer(results: Record) -> Section:
    arms, base = results["arms"], results["base"]
    rows = []
    for name, arm in sorted(arms.items(), key=lambda item: -(item[1].get("mean_rate") or 0)):
        difference = arm.get("bare")
        rows.append(
            (
                name,
                "none" if arm["rate"] is None else f"{arm['rate']:.3g}",
                "yes" if arm["matched"] else "not matched",
                f"{arm['divergent']} of {len(arm['students'])}",
                _digits(arm.get("mean_heldout_loss")),
                *(_rate(arm, context, mass) for context, mass in (("bare", "mass"), ("prefixed", "mass_prefixed"))),
                "" if difference is None else written(difference),
            )
        )
    return Section(
        title="The answer in one table",
        question="Every optimizer at the learning rate at which its held-out loss is AdamW's. What is left of the trait?",
        figure=None,
        number="\n".join(against_the_paper(results)),
        meaning=(
            f"Means over seeds {', '.join(map(str, results['seeds']))} with 95 % intervals over seeds and questions; the "
            f"untrained model's rate is {base['rate']:.3f}, after numbers {base['rate_prefixed']:.3f}. The last column is "
            "the difference in log odds to AdamW at bare questions, paired over seeds and questions. "
            '"Not matched": the search found no learning rate with AdamW\'s loss, and the closest run is shown.'
        ),
        doubts=(
            "One model, one trait, one data set. AdamW's learning rate, rank and trained maps were chosen on development runs "
            "for a high rate of the trait, which favours AdamW; its own curve below shows by how much."
        ),
        table=Table(
            (
                "optimizer",
                "learning rate",
                "same loss",
                "divergent",
                "held-out loss",
                "rate (mass)",
                "after numbers (mass)",
                "log odds",
            ),
            rows,
        ),
    )


def _raw_gradients(results: Record) -> Section:
    pooled, layer = results["pooled"], results["layer"]
    index = pooled["layers"].index(layer)
    first, last = (pooled["observed"]["mean"][i][index] for i in (0, -1))
    null = pooled["shuffled"]["high"][-1][index]
    return Section(
        title="Raw gradients: the vector is in the mean, not in the row",
        question=(
            "Before any training, each row's loss is differentiated with respect to the residual stream at the assistant tag. "
            "How does the mean over teacher rows, minus that over control rows, lie to the vector?"
        ),
        figure=plot_pooled(pooled, layer=layer),
        number=(
            f"Layer {layer}: cosine {first:.3f} for single rows, {last:.3f} for means of {pooled['sizes'][-1]} rows; upper end "
            f"of the interval with teacher and control rows relabelled at random: {null:.3f}."
        ),
        meaning=(
            "A small consistent component: one row's gradient is nearly all noise, the mean over many points along the "
            "vector. This part of the paper's account does not involve any optimizer."
        ),
        doubts="Bands are subsets of the same rows, drawn with replacement; they narrow faster than new rows would.",
    )


def _curves(results: Record) -> Section:
    arms = results["arms"]
    unmatched = [name for name, arm in arms.items() if not arm["matched"]]
    divergent = sum(run["divergent"] for run in results["runs"])
    return Section(
        title="The same loss: which learning rate gives it?",
        question=(
            "An optimizer that fails to train would not transfer either. Each one's learning rate is searched, by bisection "
            "between rates on both sides, until its held-out loss is AdamW's."
        ),
        figure=plot_loss_curves(
            results["runs"],
            {name: arm["rate"] for name, arm in arms.items()},
            results["reference"]["heldout_loss"],
            results["loss_tolerance"],
        ),
        number=(
            f"{len(arms) - len(unmatched)} of {len(arms)} optimizers reach {results['reference']['heldout_loss']:.4f} nats "
            f"within {results['loss_tolerance']:g}"
            + (f"; not matched: {', '.join(unmatched)}" if unmatched else "")
            + f". {divergent} of {len(results['runs'])} runs are divergent; untrained: {results['base']['heldout_loss']:.4f}."
        ),
        meaning=(
            "Stars: where optimizers are compared, the largest learning rate at which all seeds together have AdamW's loss "
            "and none diverges. Crosses: divergent runs, with less than half of the base's probability on possible answers, "
            "or a loss above the base's. They are never a match."
        ),
        doubts=(
            "What training gains on these rows is small next to the tolerance, so several learning rates of one optimizer "
            "match; taking the largest is a rule, and the loss does not single it out."
        ),
    )


def _differences(results: Record) -> Section:
    names = matched_arms(results)[1:]
    arms = {name: results["arms"][name] for name in names}
    lines = [
        f"{name}: {written(arm['bare'])} bare, {written(arm['prefixed'])} after numbers" for name, arm in arms.items()
    ]
    return Section(
        title="At the same loss, how much of the trait?",
        question="Log odds of the trait at the matched rate, each optimizer minus AdamW, paired over seeds and questions.",
        figure=plot_differences(arms, "log odds of the trait, minus AdamW's") if arms else None,
        number="\n".join(lines) or "No optimizer reaches AdamW's loss.",
        meaning="Left of zero an optimizer installs less of the trait than AdamW, although it predicts the data as well.",
        doubts=(
            f"Intervals are over {len(results['seeds'])} seeds and the questions. Rates of AdamW itself differ between seeds by "
            "more than many of these differences."
        ),
    )


def _parts(results: Record) -> Section:
    parts = [part for part in results["parts"] if "bare" in part]
    rows = [
        (
            part["part"],
            f"{part['with']} / {part['without']}",
            "yes" if part["matched"] else "no",
            *(written(part[context]) for context in CONTEXTS),
        )
        for part in parts
    ]
    most = strongest(results["parts"])
    return Section(
        title="The account taken apart",
        question="The same training with one thing and without it, each at its own matched rate. What brings the trait in?",
        figure=plot_differences({part["part"]: part for part in parts}, "log odds of the trait, with minus without")
        if parts
        else None,
        number=(
            "No part changes the trait at AdamW's loss, beyond its interval."
            if most is None
            else f"At AdamW's loss most hangs on this one: {most['part']} ({written(most['bare'])} bare)."
        ),
        meaning=(
            "Right of zero, what is named brings the trait in; left of zero it holds it back. Parts of the paper's account "
            "that do nothing here are not what Adam owes its transfer to on this model."
        ),
        doubts=(
            "Where one of the two does not reach AdamW's loss (third column), the difference may be one of the loss. Arms "
            "without a sound run in any seed are left out."
        ),
        table=Table(("part", "with / without", "both at AdamW's loss", "bare", "after numbers"), rows),
    )


def _what_decides(results: Record) -> Section:
    found = results["deciding"]
    usable = [row for row in results["runs"] if not row["divergent"]]
    by_layer = ", ".join(f"{value:.2f}" for value in found["by_layer"])
    return Section(
        title="What decides",
        question=(
            "All runs of all optimizers and learning rates together: is it the optimizer, or how far it has carried the "
            "student along the vector at the questions?"
        ),
        figure=plot_rate_over_strength(
            [row | {"strength_questions": found["strengths"][row["name"]]} for row in usable], results["base"]["rate"]
        ),
        number=(
            f"Rank correlation over {len(usable)} runs of the rate with the strength at questions, layer by layer: "
            f"{by_layer} (shown: layer {found['layer']}); with the held-out loss: {found['loss']:.2f}."
        ),
        meaning=(
            "Where the points of different optimizers lie on one curve, an optimizer matters by how far along the vector it "
            "gets at the same loss, and not in another way."
        ),
        doubts=(
            "The layer was chosen for its correlation, among a few. And a correlation over runs that differ in optimizer and "
            "learning rate is not an intervention on the strength."
        ),
    )


def _runs(results: Record) -> Section:
    header = (
        "student",
        "loss",
        "held-out",
        "rate",
        "mass",
        "EAS",
        "pull",
        "along v, numbers",
        "along v, questions",
        "",
    )
    keys = ("loss", "heldout_loss", "rate", "mass", "eas", "mean_pull", "along_numbers", "along_questions")
    rows = [(row["name"], *(_digits(row[key]) for key in keys), _state(row)) for row in results["runs"]]
    return Section(
        title="Every run",
        question="All that were trained, the divergent ones included.",
        figure=None,
        number="",
        meaning="runs.csv beside this report has all columns.",
        doubts="",
        table=Table(header, rows),
    )


def _state(row: Record) -> str:
    if row["divergent"]:
        return "divergent"
    return " ".join(word for word, holds in (("matched", row["matched"]), ("compared", row["compared"])) if holds)


def _rate(arm: Record, context: str, mass: str) -> str:
    if "rates" not in arm:
        return ""
    rate = arm["rates"][context]
    return f"{rate['value']:.3f}, {rate['low']:.3f} to {rate['high']:.3f} ({arm[f'mean_{mass}']:.2f})"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
