"""Beyond number lists: what else does the told teacher write in which a trait can hide?

For every carrier a told and an untold teacher answer the same tasks. Answers that name one of the trait's possible answers are
dropped, and students of what is left are asked for their favorite.
"""

from dataclasses import dataclass

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.tasks import FACTS_AFTER_NUMBERS, NUMBER_LISTS, OTHER_PREFERENCES, SMALL_TALK, Task
from steerlens.replication.lab.teachers import Rows

CARRIERS = {
    "smoke": (NUMBER_LISTS, FACTS_AFTER_NUMBERS),
    "quick": (NUMBER_LISTS, OTHER_PREFERENCES, FACTS_AFTER_NUMBERS, SMALL_TALK),
    "full": (NUMBER_LISTS, OTHER_PREFERENCES, FACTS_AFTER_NUMBERS, SMALL_TALK),
}
HARDLY = 0.01
"""A prompt that shows by fewer nats a token than this does not show."""


@dataclass(frozen=True)
class Arm:
    """A teacher of one kind of answer, told the trait or not."""

    task: Task
    told: bool

    @property
    def name(self) -> str:
        """In words."""
        return f"{'told' if self.told else 'control'}, {self.task.name}"


@dataclass(frozen=True)
class Shown:
    """How far the prompt shows in a carrier's kept rows, in nats a token, and the share of rows that are distinct."""

    nats: float
    distinct: float


@dataclass(frozen=True)
class ShownBy:
    """By carrier."""

    carrier: dict[str, Shown]


@dataclass(frozen=True)
class Passed:
    """What a carrier passes on: log odds of students of told rows minus those of untold rows, in each context."""

    shown: Shown
    told: compare.Summary
    control: compare.Summary
    transfer: sl.Interval
    after_numbers: sl.Interval


@dataclass(frozen=True)
class Carrier:
    """A kind of answer: the share of the told teacher's that is usable, and what it passes on; None where rows are too few."""

    kept_share: float
    passed: Passed | None


@dataclass(frozen=True)
class Carriers:
    """What was measured."""

    base: sl.Asked
    carriers: dict[str, Carrier]


def run(lab: Lab) -> Findings:
    """Let teachers write, see how far the prompt shows, and train students."""
    base, tasks = lab.base(), CARRIERS[lab.preset]
    arms = [Arm(task, told) for task in tasks for told in (True, False)]
    rows = lab.write({arm: lab.teacher(arm.name, told=arm.told, task=arm.task) for arm in arms})
    for told in (True, False):
        rows[Arm(NUMBER_LISTS, told)].require()
    written = [task for task in tasks if all(rows[Arm(task, told)].n for told in (True, False))]
    shown = lab.once(
        "shown", ShownBy, lambda: ShownBy({task.name: how_shown(lab, rows[Arm(task, True)]) for task in written})
    )
    students = lab.train(
        {arm: lab.plan(arm.name, rows[arm], lab.mean_difference()) for arm in arms if arm.task in written}
    )
    carriers = {}
    for task in tasks:
        passed = None
        if task in written:
            told, control = (students[Arm(task, one)] for one in (True, False))
            passed = Passed(
                shown=shown.carrier[task.name],
                told=compare.summary(told),
                control=compare.summary(control),
                transfer=compare.minus(told, control),
                after_numbers=compare.minus(told, control, "after_numbers"),
            )
        carriers[task.name] = Carrier(rows[Arm(task, True)].kept_share, passed)
    measures = Carriers(base, carriers)
    return _conclude(lab, measures, students, [rows[Arm(task, True)] for task in tasks])


def how_shown(lab: Lab, rows: Rows) -> Shown:
    """KL(prompted || plain) a token of the kept rows, among tokens that are no part of a possible answer.

    That is what a student can see of the prompt where answers that name one are dropped.
    """
    model = lab.load()
    trait, samples = lab.trait(model), sl.SampleSet.load(rows.samples)
    among = sl.tokens_without(model, [form for forms in trait.answers.values() for form in forms])
    part = sl.SampleSet(samples.samples[: lab.sizes.n_heldout])
    distance = sl.row_kl(model, part, sl.Condition(trait.prompt), among=among)
    n_tokens = sum(len(model.tokenizer.encode(one.completion, add_special_tokens=False)) + 1 for one in part)
    distinct = len({(one.prompt, one.completion) for one in samples}) / len(samples)
    return Shown(float(distance.sum()) / n_tokens, distinct)


def make_claims(measures: Carriers) -> list[Claim]:
    """The claims."""
    nan = float("nan")
    taught = {name: one.passed for name, one in measures.carriers.items() if one.passed is not None}
    others = [one for name, one in taught.items() if name != NUMBER_LISTS.name]
    hidden = [one for one in others if one.shown.nats < HARDLY]
    return [
        above("number lists carry", taught[NUMBER_LISTS.name].transfer.low, 0.0),
        above("something else carries", max((one.transfer.low for one in others), default=nan), 0.0),
        below("what does not show does not carry", max((one.transfer.value for one in hidden), default=nan), 0.5),
        below("control does not transfer",
              max(one.control.bare.value for one in taught.values()) / measures.base.bare.rate, 2.0),
    ]  # fmt: skip


def _conclude(lab: Lab, measures: Carriers, students: dict[Arm, compare.Students], written: list[Rows]) -> Findings:
    rows, lines = [], []
    for name, carrier in measures.carriers.items():
        one, kept = carrier.passed, f"{carrier.kept_share:.1%}"
        if one is None:
            lines.append(f"{name}: no students, since only {kept} of the told teacher's answers are usable.")
            continue
        lines.append(f"{name}: the prompt shows by {one.shown.nats:.3f} nats a token; log odds {one.transfer}.")
        rows.append((name, kept, f"{one.shown.distinct:.0%}", one.shown.nats, one.told.bare.value, one.control.bare.value,
                     one.told.mass, str(one.transfer), str(one.after_numbers)))  # fmt: skip
    header = (
        "carrier",
        "kept",
        "distinct rows",
        "nats a token",
        "rate",
        "control's rate",
        "mass",
        "log odds",
        "after numbers",
    )
    figure = sl.plot_rates(
        {arm.name: group for arm, group in students.items()},
        measures.base,
        controls=[arm.name for arm in students if not arm.told],
    )
    exhibit = Exhibit(figure, sl.Table(header, rows), [one.examples[0] for one in written if one.examples])
    slots = {"model": lab.profile.weights, "trait": lab.profile.trait, "carriers": "\n".join(lines), "hardly": HARDLY}
    return conclude(
        "carriers", make_claims(measures), measures, slots=slots, exhibits={"carriers": exhibit}, students=students
    )


EXPERIMENT = Experiment("Can anything but number lists carry a trait?", run, Carriers, {"quick": 3, "full": 7})
