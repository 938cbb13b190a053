"""Is the vector the cause, in the teacher and in the student?

Added to a teacher without its prompt, v_teacher should make data that teach the trait; taken out of the prompted teacher, data
that teach nothing. The same for the student's own shift: added to its base it should show the trait; taken out of the student,
hide it. Reference: arXiv 2606.00995, sections 3.2 and 3.3.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.candidates import RANDOM, Candidate, Candidates, make_candidates
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.dissection import Dissection
from steerlens.replication.lab.effects import Effect, Effects, measure_effects
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.teachers import Rows, Teacher, silent_in_words


@dataclass(frozen=True)
class Arm:
    """A teacher, and its students: told the trait, untold, or with a vector added or taken out."""

    kind: Literal["told", "control", "added", "taken out"]
    vector: str = ""

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind}: {self.vector}" if self.vector else self.kind

    def teacher(self, lab: Lab) -> Teacher:
        """Who writes the lists."""
        file, told = lab.vector_file(self.name) if self.vector else None, self.kind in ("told", "taken out")
        mode = "project_out" if self.kind == "taken out" else "add"
        return lab.teacher(self.name, told=told, vector=file, mode=mode)


TOLD, CONTROL = Arm("told"), Arm("control")


@dataclass(frozen=True)
class Learned:
    """What the students of an arm learned; shares are of the told teacher's transfer, differences in log odds."""

    summary: compare.Summary
    share: sl.Interval
    share_after_numbers: sl.Interval
    minus_told: sl.Interval
    minus_control: sl.Interval


@dataclass(frozen=True)
class Causal:
    """What was measured; `best` is the vector with most of the prompt's effect on lists, on which claims are made."""

    base: sl.Asked
    candidates: dict[str, Candidate]
    best: str
    rows: dict[str, Rows]
    effects: dict[str, Effect]
    learned: dict[str, Learned]
    student: dict[str, sl.Interval]
    explained: dict[str, float]


def run(lab: Lab) -> Findings:
    """Add the vector and take it out, in the teacher and in the student."""
    base = lab.base()
    candidates = lab.once("candidates", Candidates, lambda: make_candidates(lab)).by_name
    arms = [TOLD, CONTROL, *(Arm(kind, name) for kind in ("added", "taken out") for name in candidates)]
    teachers = {arm: arm.teacher(lab) for arm in arms}
    rows = lab.write(teachers)
    told, _ = (rows[arm].require() for arm in (TOLD, CONTROL))
    effects = lab.once("effects", Effects, lambda: measure_effects(lab, compare.named(teachers), told)).by_name
    students = lab.train({arm: lab.plan(arm.name, rows[arm], lab.mean_difference()) for arm in arms if rows[arm].n})
    dissections = lab.examine(students[TOLD], partial(Dissection, n_tasks=lab.sizes.n_tasks), "dissections")
    first, student = dissections[0], [one.student for one in dissections]
    inside = {name: [one.arms[name] for one in dissections] for name in first.arms}
    measures = Causal(
        base=base,
        candidates=candidates,
        best=max((name for name in candidates if name != RANDOM), key=lambda name: effects[f"added: {name}"].on_lists),
        rows=compare.named(rows),
        effects=effects,
        learned={arm.name: learned(group, students, base) for arm, group in students.items()},
        student={name: compare.share(group, student, first.base) for name, group in inside.items()},
        explained={name: float(np.mean([one.explained[name] for one in dissections])) for name in first.explained},
    )
    return _conclude(lab, measures, students, {"student": student} | inside, first.base)


def learned(group: compare.Students, students: dict[Arm, compare.Students], base: sl.Asked) -> Learned:
    """An arm's students next to those of the told and of the untold teacher."""
    told = students[TOLD]
    return Learned(
        summary=compare.summary(group),
        share=compare.share(group, told, base),
        share_after_numbers=compare.share(group, told, base, "after_numbers"),
        minus_told=compare.minus(group, told),
        minus_control=compare.minus(group, students[CONTROL]),
    )


def make_claims(measures: Causal) -> list[Claim]:
    """The claims. A teacher without students leaves its claims unmeasured."""
    base, nan, best = measures.base.bare.rate, float("nan"), measures.best
    rate = {name: one.summary.bare.value for name, one in measures.learned.items()}
    share = {name: one.share.value for name, one in measures.learned.items()}
    student = {name: one.value for name, one in measures.student.items()}
    return [
        above("told teacher transfers", rate["told"] / base, 3.0),
        below("control does not", rate["control"] / base, 2.0),
        above("v_teacher is sufficient", rate.get(f"added: {best}", nan) / rate["told"], 0.7),
        below("a random vector is not", share.get(f"added: {RANDOM}", nan), 0.1),
        below("v_teacher is necessary", share.get(f"taken out: {best}", nan), 0.25),
        above("a random direction is not", share.get(f"taken out: {RANDOM}", nan), 0.7),
        above("v_student is sufficient", student["added: questions"], 0.7),
        below("a random shift is not", student["added: random, norms at questions"], 0.1),
        below("v_student is necessary", student["replaced: questions"], 0.5),
        above("random components are not", student["replaced: random, norms at questions"], 0.7),
    ]


def _conclude(
    lab: Lab,
    measures: Causal,
    students: dict[Arm, compare.Students],
    inside: dict[str, list[sl.Asked]],
    judged: sl.Asked,
) -> Findings:
    def figure(kind: str):
        shown = {arm: group for arm, group in students.items() if arm.kind in ("told", "control", kind)}
        return sl.plot_rates(compare.named(shown), measures.base, controls=["control", f"{kind}: {RANDOM}"])

    def shares(kind: str) -> str:
        found = {arm.name: measures.learned[arm.name] for arm in students if arm.kind == kind}
        return "\n".join(
            f"{name}: {one.share} of the transfer bare, {one.share_after_numbers} after numbers."
            for name, one in found.items()
        )

    candidates = [
        (name, ", ".join(map(str, one.layers)), ", ".join(f"{norm:.1f}" for norm in one.norms), str(one.tasks),
         str(one.questions), one.steered.bare.rate, one.steered.after_numbers.rate)
        for name, one in measures.candidates.items()
    ]  # fmt: skip
    arms = [
        (name, f"{measures.rows[name].kept_share:.2f}", measures.effects[name].on_lists, measures.effects[name].own.bare.rate,
         one.summary.bare.value, one.summary.mass, str(one.share), str(one.share_after_numbers), str(one.minus_control))
        for name, one in measures.learned.items()
    ]  # fmt: skip
    header = ("teacher", "lists kept", "effect on lists", "its own rate", "students' rate", "mass", "share of the transfer",
              "after numbers", "log odds minus control's")  # fmt: skip
    effects = {
        kind: {arm.name: (measures.effects[arm.name].on_lists, measures.learned[arm.name].share.value) for arm in students
               if arm.kind == kind}
        for kind in ("told", "control", "added", "taken out")
    }  # fmt: skip
    slots = {
        "model": lab.profile.weights, "trait": lab.profile.trait, "best": measures.best,
        "added": shares("added"), "taken": shares("taken out"),
        "silent": silent_in_words([name for name, one in measures.rows.items() if not one.n]),
        "student": "\n".join(f"{name}: share of the transfer {one}." for name, one in measures.student.items()),
        "explained": ", ".join(f"{value:.2f} at {where}" for where, value in measures.explained.items()),
    }  # fmt: skip
    exhibits = {
        "vectors": Exhibit(table=sl.Table(("vector", "layers", "norms", "kl_explained, tasks", "kl_explained, questions",
                                           "steered rate", "after numbers"), candidates)),
        "added": Exhibit(figure("added"), sl.Table(header, arms)),
        "taken": Exhibit(figure("taken out")),
        "effects": Exhibit(plots.plot_points(effects, x="share of the prompt's effect on pure lists",
                                             y="share of the transfer in students", line=0.0)),
        "student": Exhibit(sl.plot_rates(inside, judged, controls=[name for name in inside if "random" in name])),
    }  # fmt: skip
    return conclude("causal", make_claims(measures), measures, slots=slots, exhibits=exhibits, students=students)


EXPERIMENT = Experiment(
    "Is the vector the cause, in the teacher and in the student?", run, Causal, {"quick": 8, "full": 30}
)
