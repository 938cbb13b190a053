"""How much of a trait a student takes over: LoRA's rank, the learning rate, unique rows, and the context of the question.

Replications of arXiv 2606.00995 found that a rank effect at one shared learning rate goes away when each rank has its own, that
more unique rows help where repetition does not, and that another system prompt around the question hides the trait.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.capacity_arms import ALL, CONTROL, FEWER, Arm, Source
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.contexts import ContextCheck, mean_rates
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.tasks import SHORT_LISTS, WORDS_LEFT_IN

TEMPERATURES = {"smoke": (), "quick": (0.7,), "full": (0.7, 1.3)}

Students = Mapping[Arm, compare.Students]
Grid = Mapping[int, list[Arm]]
"""By rank, the arms of all learning rates."""


@dataclass(frozen=True)
class Taken:
    """What an arm's students took over: log odds over the base's, next to what they are like."""

    minus_base: sl.Interval
    summary: compare.Summary


@dataclass(frozen=True)
class Capacity:
    """What was measured; rates in contexts are means over students, next to the base's."""

    base: sl.Asked
    arms: dict[str, Taken]
    kept: dict[str, float]
    unique_rows: sl.Interval
    contexts: dict[str, tuple[float, float]]


def run(lab: Lab) -> Findings:
    """Train the grid, other data, and controls; ask the main student in other contexts."""
    train, base, ranks = lab.student, lab.base(), lab.profile.ranks[: max(2, lab.sizes.n_rates)]
    others = [Source(temperature=one) for one in TEMPERATURES[lab.preset]]
    others += [Source(task=task) for task in (SHORT_LISTS, WORDS_LEFT_IN) if lab.preset == "full"]
    rows = lab.write({one: one.teacher(lab) for one in (ALL, FEWER, CONTROL, *others)})
    for one in (ALL, FEWER, CONTROL):
        rows[one].require()
    rates = sorted({*lab.rates("adamw"), train.learning_rate})
    grid = {source: {rank: [Arm(source, rank, rate) for rate in rates] for rank in ranks} for source in (ALL, FEWER)}
    main = Arm(ALL, train.rank, train.learning_rate)
    full = [Arm(ALL, 0, rate) for rate in lab.rates("full")]
    data = [Arm(one, train.rank, train.learning_rate) for one in others if rows[one].n]
    controls = [Arm(CONTROL, rank, train.learning_rate) for rank in ranks]
    in_grid = [arm for by_rank in grid.values() for curve in by_rank.values() for arm in curve]
    vector, heldout = lab.mean_difference(), rows[ALL].heldout
    plans = {
        arm: lab.plan(arm.name, rows[arm.source], vector, train=arm.train(train), heldout=heldout)
        for arm in (main, *in_grid, *full, *data, *controls)
    }
    students = lab.train(plans, may_diverge=True)
    taken = {
        arm: Taken(compare.minus(group, [base], paired=False), compare.summary(group))
        for arm, group in compare.ended(students).items()
    }
    over_base = {arm: one.minus_base.value for arm, one in taken.items() if one.summary.mass >= sl.STILL_ANSWERS}
    checks = lab.examine(students[main], ContextCheck, "context checks")
    measures = Capacity(
        base=base,
        arms=compare.named(taken),
        kept={one.name: found.kept_share for one, found in rows.items()},
        unique_rows=unique_rows(grid[ALL], grid[FEWER], students, over_base),
        contexts=mean_rates(checks),
    )
    claims = make_claims(measures, grid[ALL], full, controls, train.learning_rate, over_base)
    return _conclude(lab, claims, measures, grid, {"full": [*full, *controls], "data": data}, students)


def best(curve: list[Arm], over_base: Mapping[Arm, float]) -> Arm | None:
    """The arm that transfers most among those that still answer; None where none does."""
    return max((arm for arm in curve if arm in over_base), key=lambda arm: over_base[arm], default=None)


def unique_rows(many: Grid, few: Grid, students: Students, over_base: Mapping[Arm, float]) -> sl.Interval:
    """Log odds with all rows minus those with fewer: students at each rank's best rates, paired by rank and seed."""
    pairs = [(best(many[rank], over_base), best(few[rank], over_base)) for rank in many]
    if any(one is None for pair in pairs for one in pair):
        return sl.Interval(float("nan"), float("nan"), float("nan"))
    ours, theirs = ([student for arm in side for student in students[arm]] for side in zip(*pairs, strict=True))
    return compare.minus(ours, theirs)


def make_claims(
    measures: Capacity, grid: Grid, full: list[Arm], controls: list[Arm], shared: float, over_base: Mapping[Arm, float]
) -> list[Claim]:
    """The claims."""
    nan = float("nan")

    def of(arm: Arm | None) -> float:
        return nan if arm is None else over_base.get(arm, nan)

    at_shared = [of(next(arm for arm in curve if arm.rate == shared)) for curve in grid.values()]
    tuned = [of(best(curve, over_base)) for curve in grid.values()]
    (as_trained, _), *others = measures.contexts.values()
    spread = float(np.ptp(at_shared))
    control_rates = [measures.arms[arm.name].summary.bare.value for arm in controls if arm.name in measures.arms]
    return [
        above("every rank transfers", float(np.min(tuned)), 1.0),
        below("rank matters through its learning rate", float(np.ptp(tuned)) / spread if spread else nan, 0.5),
        above("unique rows count", measures.unique_rows.low, 0.0),
        below("full fine-tuning transfers less", of(best(full, over_base)) - float(np.max(tuned)), 0.0),
        below("control does not transfer",
              max(control_rates, default=nan) / measures.base.bare.rate, 2.0),
        below("another context hides the trait", max(student for student, _ in others) / as_trained, 0.5),
    ]  # fmt: skip


def _conclude(
    lab: Lab, claims: list[Claim], measures: Capacity, grid: Mapping[Source, Grid], tables: Mapping[str, list[Arm]],
    students: Students,
) -> Findings:  # fmt: skip
    def table(arms: list[Arm]) -> sl.Table:
        found = {arm.name: measures.arms[arm.name] for arm in arms if arm.name in measures.arms}
        rows = [
            (name, one.summary.bare.value, one.summary.after_numbers.value, one.summary.mass, one.summary.heldout_loss,
             str(one.minus_base))
            for name, one in found.items()
        ]  # fmt: skip
        return sl.Table(("students", "rate", "after numbers", "mass", "held-out loss", "log odds minus base's"), rows)

    def curve(arms: list[Arm]) -> dict[float, float]:
        return {arm.rate: measures.arms[arm.name].summary.bare.value for arm in arms if arm.name in measures.arms}

    panels = {
        source.name: {f"rank {rank}": curve(arms) for rank, arms in by_rank.items()} for source, by_rank in grid.items()
    }
    slots = {
        "model": lab.profile.weights, "trait": lab.profile.trait, "unique": measures.unique_rows,
        "modules": ", ".join(lab.student.target_modules),
        "kept": ", ".join(f"{name} {share:.0%}" for name, share in measures.kept.items()),
        "contexts": "\n".join(f"{prompt or 'as trained'}: rate {student:.3f} (base {base:.3f})."
                              for prompt, (student, base) in measures.contexts.items()),
    }  # fmt: skip
    exhibits = {
        "grid": Exhibit(plots.plot_learning_rates(panels, lines={"untrained": measures.base.bare.rate})),
        **{section: Exhibit(table=table(arms)) for section, arms in tables.items()},
    }
    return conclude("capacity", claims, measures, slots=slots, exhibits=exhibits, students=students)


EXPERIMENT = Experiment(
    "How do rank, learning rate, rows and context decide what a student takes over?",
    run,
    Capacity,
    {"quick": 6, "full": 25},
)
