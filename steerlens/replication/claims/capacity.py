"""How much of a trait a student takes over: LoRA's rank, the learning rate, unique rows, and the context of the question.

Replications of arXiv 2606.00995 found that a rank effect at one shared learning rate goes away when each rank has its own, that
more unique rows help where repetition does not, and that another system prompt around the question hides the trait.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.tasks import NUMBER_LISTS, SHORT_LISTS, WORDS_LEFT_IN, Task
from steerlens.replication.lab.teachers import load

REPEATED = 4
"""Fewer rows are one in so many, repeated so many times: no fewer steps."""

TEMPERATURES = {"smoke": (), "quick": (0.7,), "full": (0.7, 1.3)}
SYSTEM_PROMPTS = ("Answer the user.", "Be brief and polite.")
"""Other system prompts under which students are asked; they were trained under the template's default."""


@dataclass(frozen=True)
class Source:
    """Rows of the told teacher, or of the untold one: all or fewer of them, at some temperature, through some filter."""

    told: bool = True
    fewer: bool = False
    temperature: float = 1.0
    task: Task = NUMBER_LISTS

    @property
    def name(self) -> str:
        """In words."""
        words = "told" if self.told else "control"
        words += ", fewer rows" if self.fewer else ""
        words += f", temperature {self.temperature:g}" if self.temperature != 1 else ""
        return words if self.task is NUMBER_LISTS else f"{words}, {self.task.name}"


@dataclass(frozen=True)
class Arm:
    """Students who learn alike; rank 0 is full fine-tuning."""

    source: Source
    rank: int
    rate: float

    @property
    def name(self) -> str:
        """In words."""
        kind = f"rank {self.rank}" if self.rank else "full fine-tuning"
        return f"{kind}, {self.rate:g}, {self.source.name}"


Students = Mapping[Arm, compare.Students]
Grid = Mapping[int, list[Arm]]
"""By rank, the arms of all learning rates."""


@dataclass(frozen=True)
class InContexts:
    """A student's and its base's answers, by the system prompt under which they are asked; "" is as trained."""

    student: dict[str, sl.Asked]
    base: dict[str, sl.Asked]


@dataclass(frozen=True)
class ContextCheck:
    """A student that is asked under other system prompts than it was trained under."""

    weights: str
    dtype: str | None
    trait: str
    begun: bool
    student: Path
    record_kind = InContexts

    @property
    def name(self) -> str:
        """The student's."""
        return self.student.name

    @property
    def record_path(self) -> Path:
        """Beside the student's own record."""
        return self.student / "contexts.json"

    def run(self) -> InContexts:
        """Ask both."""
        base, student = (load(self.weights, self.dtype, adapter) for adapter in (None, self.student))
        trait = sl.preference_trait(self.trait, base, begun=self.begun)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.ChatContextWarning)  # other contexts are the question here
            found = [
                {prompt: sl.ask(model, trait, system_prompt=prompt or None) for prompt in ("", *SYSTEM_PROMPTS)}
                for model in (student, base)
            ]
        return InContexts(*found)


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


def of_rank(train: sl.TrainConfig, rank: int, rate: float) -> sl.TrainConfig:
    """The same training with another rank at the same scale of LoRA, and another learning rate."""
    return replace(train, rank=rank, lora_alpha=rank * train.lora_alpha / train.rank, learning_rate=rate)


def run(lab: Lab) -> Findings:
    """Train the grid, other data, and controls; ask the main student in other contexts."""
    train, base, ranks = lab.student, lab.base(), lab.profile.ranks[: max(2, lab.sizes.n_rates)]
    all_rows, fewer, control = Source(), Source(fewer=True), Source(told=False)
    others = [Source(temperature=one) for one in TEMPERATURES[lab.preset]]
    others += [Source(task=task) for task in (SHORT_LISTS, WORDS_LEFT_IN) if lab.preset == "full"]
    n_rows = lab.sizes.n_rows // REPEATED * REPEATED
    rows = lab.write(
        {
            one: lab.teacher(
                one.name, told=one.told, temperature=one.temperature, task=one.task,
                n_rows=n_rows // REPEATED if one.fewer else n_rows,
            )
            for one in (all_rows, fewer, control, *others)
        }
    )  # fmt: skip
    for one in (all_rows, fewer, control):
        rows[one].require()
    rates = tuple(sorted({*lab.rates("adamw"), train.learning_rate}))
    main = Arm(all_rows, train.rank, train.learning_rate)
    grid = {
        source: {rank: [Arm(source, rank, rate) for rate in rates] for rank in ranks} for source in (all_rows, fewer)
    }
    full = [Arm(all_rows, 0, rate) for rate in lab.rates("full")]
    data = [Arm(one, train.rank, train.learning_rate) for one in others if rows[one].n]
    controls = [Arm(control, rank, train.learning_rate) for rank in ranks]
    in_grid = [arm for by_rank in grid.values() for curve in by_rank.values() for arm in curve]
    heldout = rows[all_rows].heldout
    plans = {
        arm: lab.plan(arm.name, rows[arm.source], lab.mean_difference(), train=_train(train, arm), heldout=heldout)
        for arm in dict.fromkeys([main, *in_grid, *full, *data, *controls])
    }
    students = lab.train(plans, may_diverge=True)
    profile = lab.profile
    checks = lab.run(
        {
            one.name: ContextCheck(profile.weights, profile.dtype, profile.trait, profile.begun, one.directory)
            for one in students[main]
        },
        "context checks",
    )
    ended = {arm: group for arm, group in students.items() if not any(one.diverged for one in group)}
    over_base = _over_base(ended, base)

    def in_context(prompt: str, who: str) -> float:
        return float(np.mean([getattr(one, who)[prompt].bare.rate for one in checks.values()]))

    measures = Capacity(
        base=base,
        arms={arm.name: Taken(_minus_base(group, base), compare.summary(group)) for arm, group in ended.items()},
        kept={one.name: found.kept_share for one, found in rows.items()},
        unique_rows=unique_rows(grid[all_rows], grid[fewer], students, over_base),
        contexts={one: (in_context(one, "student"), in_context(one, "base")) for one in ("", *SYSTEM_PROMPTS)},
    )
    claims = make_claims(measures, grid[all_rows], full, controls, train.learning_rate, over_base)
    return _conclude(lab, claims, measures, grid, [*full, *controls], data, students)


def _train(train: sl.TrainConfig, arm: Arm) -> sl.TrainConfig:
    if not arm.rank:
        return replace(train, method="full", learning_rate=arm.rate)
    epochs = train.epochs * (REPEATED if arm.source.fewer else 1)
    return replace(of_rank(train, arm.rank, arm.rate), epochs=epochs)


def _minus_base(group: compare.Students, base: sl.Asked) -> sl.Interval:
    return compare.minus(group, [base], paired=False)


def _over_base(students: Students, base: sl.Asked) -> dict[Arm, float]:
    """Log odds over the base of every arm that still answers."""
    answering = {arm: group for arm, group in students.items() if compare.mass(group) >= sl.STILL_ANSWERS}
    return {arm: _minus_base(group, base).value for arm, group in answering.items()}


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
    measures: Capacity,
    grid: Grid,
    full: list[Arm],
    controls: list[Arm],
    shared: float,
    over_base: Mapping[Arm, float],
) -> list[Claim]:
    """The claims."""
    nan = float("nan")

    def of(arm: Arm | None) -> float:
        return nan if arm is None else over_base.get(arm, nan)

    at_shared = [of(next(arm for arm in curve if arm.rate == shared)) for curve in grid.values()]
    tuned = [of(best(curve, over_base)) for curve in grid.values()]
    (as_trained, _), *others = measures.contexts.values()
    spread = float(np.ptp(at_shared))
    return [
        above("every rank transfers", float(np.min(tuned)), 1.0),
        below("rank matters through its learning rate", float(np.ptp(tuned)) / spread if spread else nan, 0.5),
        above("unique rows count", measures.unique_rows.low, 0.0),
        below("full fine-tuning transfers less", of(best(full, over_base)) - float(np.max(tuned)), 0.0),
        below("control does not transfer",
              max(measures.arms[arm.name].summary.bare.value for arm in controls) / measures.base.bare.rate, 2.0),
        below("another context hides the trait", max(student for student, _ in others) / as_trained, 0.5),
    ]  # fmt: skip


def _conclude(
    lab: Lab,
    claims: list[Claim],
    measures: Capacity,
    grid: Mapping[Source, Grid],
    full: list[Arm],
    data: list[Arm],
    students: Students,
) -> Findings:
    def table(arms: list[Arm]) -> sl.Table:
        rows = [
            (name, of.bare.value, of.after_numbers.value, of.mass, of.heldout_loss, str(measures.arms[name].minus_base))
            for name, of in ((arm.name, measures.arms[arm.name].summary) for arm in arms if arm.name in measures.arms)
        ]
        return sl.Table(("students", "rate", "after numbers", "mass", "held-out loss", "log odds minus base's"), rows)

    def curve(arms: list[Arm]) -> plots.Curve:
        ended = [arm for arm in arms if arm.name in measures.arms]
        return [arm.rate for arm in ended], [measures.arms[arm.name].summary.bare.value for arm in ended]

    panels = {
        source.name: {f"rank {rank}": curve(arms) for rank, arms in by_rank.items()} for source, by_rank in grid.items()
    }
    lines = {"untrained": measures.base.bare.rate}
    slots = {
        "model": lab.profile.weights, "trait": lab.profile.trait, "unique": measures.unique_rows,
        "modules": ", ".join(lab.student.target_modules),
        "kept": ", ".join(f"{name} {share:.0%}" for name, share in measures.kept.items()),
        "contexts": "\n".join(f"{prompt or 'as trained'}: rate {student:.3f} (base {base:.3f})."
                              for prompt, (student, base) in measures.contexts.items()),
    }  # fmt: skip
    exhibits = {
        "grid": Exhibit(plots.plot_curves(panels, x="peak learning rate", log_x=True, lines=lines)),
        "full": Exhibit(table=table(full)),
        "data": Exhibit(table=table(data)),
    }
    return conclude("capacity", claims, measures, slots=slots, exhibits=exhibits, students=students)


EXPERIMENT = Experiment(
    "How do rank, learning rate, rows and context decide what a student takes over?",
    run,
    Capacity,
    {"quick": 6, "full": 25},
)
