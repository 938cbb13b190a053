"""Does the optimizer decide whether a trait passes? Many optimizers, one data set, compared at the same held-out loss.

The paper says that a trait passes only under adaptive optimizers. Every activation gradient carries a small consistent component
along the steering vector, rows with outlier gradients drown it, and Adam's division by each coordinate's size brings it out.
Reference: arXiv 2606.00995, section 6.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.bench import BaseLoss, Bench
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.loss_match import Match
from steerlens.replication.lab.optimizer_arms import ADAMW, FULL, QUICK, SGD, SGD_UNCLIPPED, SMOKE, Arm
from steerlens.replication.lab.optimizer_parts import Switched, switched
from steerlens.replication.lab.raw_gradients import Pooled, Tail, pooled_cosine, tail
from steerlens.replication.lab.run import Experiment

ARMS = {"smoke": SMOKE, "quick": QUICK, "full": FULL}
BUDGET = {"smoke": 0, "quick": 2, "full": 4}
"""Learning rates that the search may add to an arm's."""

TOLERANCE = 0.005
"""Nats a token within which a held-out loss matches AdamW's."""

SHOWN = 5
"""Optimizers in the figures of traces."""


@dataclass(frozen=True)
class Compared:
    """An arm at the learning rate at which it is compared; differences are log odds minus AdamW's, at matched loss only."""

    rate: float | None
    matched: bool
    divergent: int
    summary: compare.Summary | None = None
    tail: Tail | None = None
    bare: sl.Interval | None = None
    after_numbers: sl.Interval | None = None


@dataclass(frozen=True)
class Deciding:
    """What the rate goes with over all students: rank correlations with strength at questions, by layer, and with loss."""

    strength: tuple[float, ...]
    loss: float

    @property
    def layer(self) -> int:
        """Where it goes with the strength most."""
        return int(np.nan_to_num(self.strength, nan=-2.0).argmax())


@dataclass(frozen=True)
class Optimizers:
    """What was measured; `layer` has AdamW's students' highest EAS."""

    base: sl.Asked
    base_loss: float
    layer: int
    pooled: Pooled
    arms: dict[str, Compared]
    parts: dict[str, Switched]
    deciding: Deciding


def run(lab: Lab) -> Findings:
    """Find every arm's learning rate of AdamW's loss, and compare the students there."""
    weights = lab.profile.weights
    rows = lab.write_all_kept([weights])
    told, control = rows[weights, True], rows[weights, False]
    heldout = sl.SampleSet.load(told.heldout)
    base_loss = lab.once("base-loss", BaseLoss, lambda: BaseLoss(sl.mean_loss(lab.load(), heldout))).value
    bench = Bench(lab, told, lab.base(), base_loss, lab.mean_difference(), {})
    matches = bench.match(ARMS[lab.preset], TOLERANCE, BUDGET[lab.preset])
    found = {arm: bench.at(arm, match.rate) for arm, match in matches.items()}
    usable = {arm: bench.usable(group) for arm, group in found.items()}
    layer = compare.best_layer(usable[ADAMW])
    measures = Optimizers(
        base=bench.base,
        base_loss=base_loss,
        layer=layer,
        pooled=lab.once("pooled", Pooled, lambda: pooled_cosine(lab, told, control, layer)),
        arms={
            arm.name: compared(match, usable[arm], len(found[arm]), usable[ADAMW], layer)
            for arm, match in matches.items()
        },
        parts=switched(usable, matches),
        deciding=deciding([one for group in bench.students.values() for one in bench.usable(group)]),
    )
    return _conclude(lab, measures, bench, usable)


def compared(match: Match, usable: compare.Students, n: int, adamw: compare.Students, layer: int) -> Compared:
    """An arm's students at its rate, next to AdamW's of the same seeds."""
    found = Compared(match.rate, match.matched, n - len(usable))
    if not usable:
        return found
    found = replace(found, summary=compare.summary(usable), tail=tail(usable, layer))
    if not match.matched:
        return found
    ours, theirs = compare.same_seeds(usable, adamw)
    return replace(found, bare=compare.minus(ours, theirs), after_numbers=compare.minus(ours, theirs, "after_numbers"))


def deciding(students: Sequence[sl.StudentRecord]) -> Deciding:
    """What the rate goes with over all students that did not diverge."""
    rates = np.array(compare.rates(students))
    strengths = np.array([one.at_questions.strength for one in students if one.at_questions is not None])
    losses = np.array([one.heldout_loss for one in students])
    by_layer = tuple(sl.correlation(column, rates, ranks=True) for column in strengths.T)
    return Deciding(by_layer, sl.correlation(losses, rates, ranks=True))


def make_claims(measures: Optimizers) -> list[Claim]:
    """The claims; what is not matched is not measured."""
    nan, arms, pooled, deciding = float("nan"), measures.arms, measures.pooled, measures.deciding
    sgd = [arms[arm.name].bare for arm in (SGD, SGD_UNCLIPPED) if arm.name in arms]
    against = [-one.high for one in sgd if one is not None]
    return [
        above("AdamW more than plain SGD at the same loss", min(against, default=nan), 0.0),
        above("the mean gradient points to the vector", pooled.observed[-1] - pooled.shuffled_high[-1], 0.0),
        above("the rate goes with the strength at questions", deciding.strength[deciding.layer], 0.5),
    ]


def _conclude(lab: Lab, measures: Optimizers, bench: Bench, usable: Mapping[Arm, compare.Students]) -> Findings:
    matched = {arm.name: group for arm, group in usable.items() if group and measures.arms[arm.name].matched}
    shown = dict(itertools.islice(matched.items(), SHOWN))
    rows = [
        (name, "none" if one.rate is None else f"{one.rate:.3g}", one.matched, one.divergent, one.summary.heldout_loss,
         one.summary.bare.text(3), one.summary.mass, one.summary.after_numbers.text(3), str(one.bare or ""),
         f"{one.tail.kurtosis:.1f}" if one.tail else "")
        for name, one in measures.arms.items() if one.summary is not None
    ]  # fmt: skip
    header = ("optimizer", "learning rate", "same loss", "divergent", "held-out loss", "rate", "mass", "after numbers",
              "log odds minus AdamW's", "kurtosis")  # fmt: skip
    ended = bench.ended()
    curves = {
        arm.name: {rate: compare.loss(group) for rate, group in ended[arm].items()} for arm in usable if arm in ended
    }
    points = {arm.name: _points(ended.get(arm, {}), measures.deciding.layer) for arm, group in usable.items() if group}
    pooled, unmatched = measures.pooled, [name for name, one in measures.arms.items() if not one.matched]
    parts = {name: one for name, one in measures.parts.items() if one.matched}
    slots = {
        "model": lab.profile.weights, "base": measures.base, "loss": measures.base_loss, "tolerance": TOLERANCE,
        "n": len(measures.arms), "layer": measures.layer, "rows": pooled.sizes[-1], "first": pooled.observed[0],
        "last": pooled.observed[-1], "null": pooled.shuffled_high[-1], "deciding": measures.deciding,
        "highest": measures.deciding.strength[measures.deciding.layer],
        "unmatched": f"Not matched: {', '.join(unmatched)}." if unmatched else "All of them reach AdamW's loss.",
        "parts": "\n".join(f"{name}: {one.bare} bare, {one.after_numbers} after numbers." for name, one in parts.items())
                 or "No part was switched at AdamW's loss.",
    }  # fmt: skip
    intervals = {
        "bare": {name: one.bare for name, one in parts.items()},
        "after numbers": {name: one.after_numbers for name, one in parts.items()},
    }
    traces = {name: [one.gradients for one in group] for name, group in shown.items()}
    steps = {name: group[0].steps for name, group in shown.items()}
    null = {
        "told minus control": (pooled.sizes, pooled.observed),
        "relabelled, upper end": (pooled.sizes, pooled.shuffled_high),
    }
    exhibits = {
        "answer": Exhibit(table=sl.Table(header, rows)),
        "raw": Exhibit(plots.plot_curves({"cosine with v": null}, x="rows averaged", log_x=True)),
        "curves": Exhibit(plots.plot_learning_rates({"held-out loss": curves})),
        "parts": Exhibit(plots.plot_intervals(intervals, title="log odds with minus without")),
        "gradients": Exhibit(sl.plot_gradient_projection(traces, layer=measures.layer)),
        "steps": Exhibit(sl.plot_steps(steps, layer=measures.layer)),
        "installed": Exhibit(sl.plot_strengths(shown)),
        "decides": Exhibit(plots.plot_points(points, x="strength of v at bare questions", y="rate of the trait")),
    }
    students = {f"{arm.name} {rate:g}": group for (arm, rate), group in bench.students.items()}
    return conclude("optimizers", make_claims(measures), measures, slots=slots, exhibits=exhibits, students=students)


def _points(by_rate: Mapping[float, compare.Students], layer: int) -> dict[str, tuple[float, float]]:
    """The strength at questions and the rate of every student of an arm."""
    return {
        f"{rate:.3g}, seed {one.train.seed}": (float(one.at_questions.strength[layer]), one.bare.rate)
        for rate, group in by_rate.items()
        for one in group
        if one.at_questions is not None and one.bare is not None
    }


EXPERIMENT = Experiment(
    "Does the optimizer decide whether the trait passes?", run, Optimizers, {"quick": 20, "full": 105}
)
