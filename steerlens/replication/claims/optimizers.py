"""Does the optimizer decide whether a trait passes? Many optimizers, one data set, compared at the same held-out loss.

The paper says that a trait passes only under adaptive optimizers. Every activation gradient carries a small consistent component
along the steering vector, rows with outlier gradients drown it, and Adam's division by each coordinate's size brings it out.
Reference: arXiv 2606.00995, section 6.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.bench import BaseLoss, Bench, Trained
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.loss_match import Match, search_rates, settle
from steerlens.replication.lab.optimizer_arms import ADAMW, FULL, PARTS, QUICK, SGD, SGD_UNCLIPPED, SMOKE, Arm
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.teachers import Rows

ARMS = {"smoke": SMOKE, "quick": QUICK, "full": FULL}
BUDGET = {"smoke": 0, "quick": 2, "full": 4}
"""Learning rates that the search may add to an arm's."""

TOLERANCE = 0.005
"""Nats a token within which a held-out loss matches AdamW's."""

SIZES = (1, 4, 16, 64, 256, 1024)
"""Numbers of rows over which gradients are averaged."""

SHOWN = 5
"""Optimizers in the figures of traces."""


@dataclass(frozen=True)
class Pooled:
    """Cosine of the mean gradient's difference between told and control rows with the vector, by the number of rows averaged.

    `shuffled_high` is the upper end of the interval with the rows relabelled at random.
    """

    sizes: tuple[int, ...]
    observed: tuple[float, ...]
    shuffled_high: tuple[float, ...]


@dataclass(frozen=True)
class Tail:
    """How heavy the tail of the rows' gradient norms is; a Gaussian's kurtosis is 3, equal norms have a Gini of 0."""

    kurtosis: float
    gini: float
    top_share: float


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
class Switched:
    """Log odds with a part minus those without it; `matched` says whether both arms have AdamW's loss."""

    having: str
    lacking: str
    matched: bool
    bare: sl.Interval
    after_numbers: sl.Interval


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
    asked = {"n_rows": None, "n_prompts": lab.sizes.n_prompts}
    told = lab.write({"told": lab.teacher("told", told=True, **asked)})["told"].require()
    untold = lab.teacher("control", n_rows=told.n, n_heldout=0, n_prompts=lab.sizes.n_prompts, seed=2)
    control = lab.write({"control": untold})["control"].require()
    heldout = sl.SampleSet.load(told.heldout)
    base_loss = lab.once("base-loss", BaseLoss, lambda: BaseLoss(sl.mean_loss(lab.load(), heldout))).value
    bench = Bench(lab, told, lab.base(), base_loss, lab.mean_difference(), {})
    arms, seeds, main = ARMS[lab.preset], lab.sizes.seeds, lab.student.learning_rate
    (adamw,) = bench.train([(ADAMW, main)], seeds)
    loss = bench.loss(adamw)
    if math.isinf(loss):
        raise ValueError(
            f"AdamW diverges at learning_rate={main:g} with some seed, so that there is no loss to match. Give the profile's "
            "student a smaller learning rate, or more rows."
        )
    curves = search_rates(
        {arm: lab.rates(arm.family) for arm in arms}, bench.losses(seeds[:1]), loss, TOLERANCE, BUDGET[lab.preset]
    )
    others = {arm: curve for arm, curve in curves.items() if arm is not ADAMW}
    matches = {ADAMW: Match(main, loss, True), **settle(others, bench.losses(seeds), loss, TOLERANCE)}
    unmatched = [(arm, match.rate) for arm, match in matches.items() if not match.matched and match.rate is not None]
    bench.losses(seeds)(unmatched)
    layer = int(compare.by_layer(adamw, "at_numbers", "cosine").argmax())
    at = {arm: bench.students.get((arm, match.rate), ()) for arm, match in matches.items() if match.rate is not None}
    usable = {arm: tuple(one for one in group if not bench.is_divergent(one)) for arm, group in at.items()}
    every = [one for group in bench.students.values() for one in group if not bench.is_divergent(one)]
    measures = Optimizers(
        base=bench.base,
        base_loss=base_loss,
        layer=layer,
        pooled=lab.once("pooled", Pooled, lambda: pooled(lab, bench, control, layer)),
        arms={
            arm.name: compared(match, usable.get(arm, ()), len(at.get(arm, ())), adamw, layer)
            for arm, match in matches.items()
        },
        parts=switched(usable, matches),
        deciding=deciding(every),
    )
    return _conclude(lab, measures, bench, usable, matches)


def pooled(lab: Lab, bench: Bench, control: Rows, layer: int) -> Pooled:
    """The untrained model's gradients, averaged over more and more rows."""
    rows, others = (sl.SampleSet.load(one.samples) for one in (bench.told, control))
    vector = sl.SteeringVector.load(bench.vector)
    found = sl.pooled_difference_cosine(lab.load(), rows, others, vector, sizes=SIZES)
    index = found.layers.index(layer)
    high = found.interval(found.shuffled)[1][:, index]
    return Pooled(found.sizes, tuple(found.observed.mean(0)[:, index].tolist()), tuple(high.tolist()))


def compared(match: Match, usable: compare.Students, n: int, adamw: compare.Students, layer: int) -> Compared:
    """An arm's students at its rate, next to AdamW's of the same seeds."""
    found = Compared(match.rate, match.matched, n - len(usable))
    if not usable:
        return found
    norms = [one.gradients.norm[:, :, layer] for one in usable]
    tail = Tail(*(float(np.mean([of(norm) for norm in norms])) for of in (sl.kurtosis, sl.gini, sl.top_share)))
    found = replace(found, summary=compare.summary(usable), tail=tail)
    if not match.matched:
        return found
    ours, theirs = same_seeds(usable, adamw)
    return replace(found, bare=compare.minus(ours, theirs), after_numbers=compare.minus(ours, theirs, "after_numbers"))


def same_seeds(one: compare.Students, other: compare.Students) -> tuple[compare.Students, compare.Students]:
    """The students of both whose seeds both have, in the order of the seeds."""
    pairs = {a.train.seed: (a, b) for a in one for b in other if a.train.seed == b.train.seed}
    return tuple(a for a, _ in pairs.values()), tuple(b for _, b in pairs.values())


def switched(usable: Mapping[Arm, compare.Students], matches: Mapping[Arm, Match]) -> dict[str, Switched]:
    """Every part of which both arms have students of one seed."""
    found = {}
    for part in PARTS:
        pair = same_seeds(usable.get(part.having, ()), usable.get(part.lacking, ()))
        if pair[0]:
            matched = matches[part.having].matched and matches[part.lacking].matched
            differences = [compare.minus(*pair, context) for context in compare.BOTH]
            found[part.name] = Switched(part.having.name, part.lacking.name, matched, *differences)
    return found


def deciding(students: Sequence[sl.StudentRecord]) -> Deciding:
    """What the rate goes with over all students that did not diverge."""
    rates = np.array(compare.rates(students))
    strengths = np.array(
        [one.at_questions.strength for one in students if one.at_questions is not None]
    )  # [student layer]
    losses = np.array([one.heldout_loss for one in students])
    by_layer = tuple(sl.correlation(column, rates, ranks=True) for column in strengths.T)
    return Deciding(by_layer, sl.correlation(losses, rates, ranks=True))


def make_claims(measures: Optimizers) -> list[Claim]:
    """The claims; what is not matched is not measured."""
    nan, arms = float("nan"), measures.arms
    sgd = [arms[arm.name].bare for arm in (SGD, SGD_UNCLIPPED) if arm.name in arms]
    against = [-one.high for one in sgd if one is not None]
    return [
        above("AdamW more than plain SGD at the same loss", min(against, default=nan), 0.0),
        above(
            "the mean gradient points to the vector",
            measures.pooled.observed[-1] - measures.pooled.shuffled_high[-1],
            0.0,
        ),
        above("the rate goes with the strength at questions", measures.deciding.strength[measures.deciding.layer], 0.5),
    ]


def _conclude(
    lab: Lab, measures: Optimizers, bench: Bench, usable: Mapping[Arm, compare.Students], matches: Mapping[Arm, Match]
) -> Findings:
    matched = [arm for arm in usable if usable[arm] and matches[arm].matched]
    shown = {arm.name: usable[arm] for arm in [ADAMW, *(arm for arm in matched if arm is not ADAMW)][:SHOWN]}
    rows = [
        (name, "none" if one.rate is None else f"{one.rate:.3g}", one.matched, one.divergent, one.summary.heldout_loss,
         one.summary.bare.text(3), one.summary.mass, one.summary.after_numbers.text(3), str(one.bare or ""),
         f"{one.tail.kurtosis:.1f}" if one.tail else "")
        for name, one in measures.arms.items() if one.summary is not None
    ]  # fmt: skip
    header = ("optimizer", "learning rate", "same loss", "divergent", "held-out loss", "rate", "mass", "after numbers",
              "log odds minus AdamW's", "kurtosis")  # fmt: skip
    ended = {key: group for key, group in bench.students.items() if not any(map(bench.is_divergent, group))}
    losses = {
        arm.name: sorted((rate, compare.loss(ended[one, rate])) for one, rate in ended if one is arm) for arm in usable
    }
    curves = {
        name: ([rate for rate, _ in found], [loss for _, loss in found]) for name, found in losses.items() if found
    }
    points = {arm.name: _points(arm, ended, measures.deciding.layer) for arm in usable if usable[arm]}
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
        label: {name: getattr(one, context) for name, one in parts.items()}
        for context, label in zip(compare.BOTH, ("bare", "after numbers"), strict=True)
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
        "curves": Exhibit(plots.plot_curves({"held-out loss": curves}, x="peak learning rate", log_x=True)),
        "parts": Exhibit(plots.plot_intervals(intervals, title="log odds with minus without")),
        "gradients": Exhibit(sl.plot_gradient_projection(traces, layer=measures.layer)),
        "steps": Exhibit(sl.plot_steps(steps, layer=measures.layer)),
        "installed": Exhibit(sl.plot_strengths(shown)),
        "decides": Exhibit(plots.plot_points(points, x="strength of v at bare questions", y="rate of the trait")),
    }
    students = {f"{arm.name} {rate:g}": group for (arm, rate), group in bench.students.items()}
    return conclude("optimizers", make_claims(measures), measures, slots=slots, exhibits=exhibits, students=students)


def _points(arm: Arm, students: Mapping[Trained, compare.Students], layer: int) -> dict[str, tuple[float, float]]:
    """The strength at questions and the rate of every student of an arm."""
    return {
        f"{rate:.3g}, seed {one.train.seed}": (float(one.at_questions.strength[layer]), one.bare.rate)
        for (other, rate), group in students.items()
        for one in group
        if other is arm and one.at_questions is not None and one.bare is not None
    }


EXPERIMENT = Experiment(
    "Does the optimizer decide whether the trait passes?", run, Optimizers, {"quick": 20, "full": 105}
)
