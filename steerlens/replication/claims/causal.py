"""Is the vector the cause, in the teacher and in the student?

Added to a teacher without its prompt, v_teacher should make data that teach the trait; taken out of the prompted teacher, data
that teach nothing. The same for the student's own shift: added to its base it should show the trait; taken out of the student,
hide it. Reference: arXiv 2606.00995, sections 3.2 and 3.3.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots, vectors
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.dissection import Dissected, Dissection
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.teachers import Rows, effects_on_lists

RANDOM = "random"
WAYS = {
    "smoke": (vectors.MEAN_ALL_LAYERS, vectors.PURE_LISTS),
    "quick": (vectors.MEAN_ALL_LAYERS, vectors.ALL_LAYERS, vectors.PURE_LISTS),
    "full": vectors.WAYS,
}
"""How v_teacher is made, by preset; a random vector has the norms of the last."""


@dataclass(frozen=True)
class Arm:
    """A teacher, and its students: told the trait, untold, or with a vector added or taken out."""

    kind: Literal["told", "control", "added", "taken out"]
    vector: str = ""

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.kind}: {self.vector}" if self.vector else self.kind


TOLD, CONTROL = Arm("told"), Arm("control")


@dataclass(frozen=True)
class Candidate:
    """What v_teacher may be: kl_explained on other answers to tasks and to questions, and the steered model's answers."""

    layers: tuple[int, ...]
    norms: tuple[float, ...]
    tasks: sl.Interval
    questions: sl.Interval
    steered: sl.Asked


@dataclass(frozen=True)
class Effect:
    """A teacher's share of the prompt's effect on pure lists, and its own answers."""

    on_lists: float
    own: sl.Asked


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
    base, trait = lab.base(), lab.trait(lab.load())
    candidates = lab.once("candidates", Candidates, lambda: make_candidates(lab)).by_name
    arms = [TOLD, CONTROL, *(Arm(kind, name) for kind in ("added", "taken out") for name in candidates)]
    settings = {
        "told": {"told": True},
        "control": {},
        "added": {"mode": "add"},
        "taken out": {"told": True, "mode": "project_out"},
    }
    teachers = {
        arm: lab.teacher(
            arm.name, vector=_file(lab, arm.vector, arm.kind) if arm.vector else None, **settings[arm.kind]
        )
        for arm in arms
    }
    rows = lab.write(teachers)
    told = rows[TOLD].require()
    rows[CONTROL].require()

    def measure_effects() -> Effects:
        model, lists = lab.load(), sl.SampleSet.load(told.heldout)
        shares, found = effects_on_lists(model, teachers, lists, trait.prompt), {}
        for arm, teacher in teachers.items():
            with teacher.condition.steering(model):
                found[arm.name] = Effect(shares[arm], sl.ask(model, trait, system_prompt=teacher.prompt))
        return Effects(found)

    effects = lab.once("effects", Effects, measure_effects).by_name
    students = lab.train({arm: lab.plan(arm.name, rows[arm], lab.mean_difference()) for arm in arms if rows[arm].n})
    profile = lab.profile
    jobs = {
        one.name: Dissection(
            profile.weights, profile.dtype, profile.trait, profile.begun, one.directory, lab.sizes.n_tasks
        )
        for one in students[TOLD]
    }
    dissections = [*lab.run(jobs, "dissections").values()]
    best = max((name for name in candidates if name != RANDOM), key=lambda name: effects[f"added: {name}"].on_lists)
    judged, reference = dissections[0].base, [one.student for one in dissections]
    measures = Causal(
        base=base,
        candidates=candidates,
        best=best,
        rows={arm.name: rows[arm] for arm in arms},
        effects=effects,
        learned={arm.name: learned(group, students, base) for arm, group in students.items()},
        student={
            name: compare.share([one.arms[name] for one in dissections], reference, judged)
            for name in dissections[0].arms
        },
        explained={
            name: float(np.mean([one.explained[name] for one in dissections])) for name in dissections[0].explained
        },
    )
    return _conclude(lab, make_claims(measures), measures, students, dissections)


@dataclass(frozen=True)
class Candidates:
    """By name."""

    by_name: dict[str, Candidate]


@dataclass(frozen=True)
class Effects:
    """By the name of the arm."""

    by_name: dict[str, Effect]


def _file(lab: Lab, vector: str, kind: str) -> Path:
    return lab.directory / "vectors" / f"{vector}, {kind}.safetensors"


def make_candidates(lab: Lab) -> Candidates:
    """Make what v_teacher may be; save each as it is added and as it is taken out."""
    model, found = lab.load(), {}
    trait = lab.trait(model)
    answers = vectors.Prompted.sample(model, trait, lab.sizes.fit, lab.profile.fit_layers)
    made = {way.name: way.make(answers) for way in WAYS[lab.preset]}
    made[RANDOM] = sl.random_like(made[WAYS[lab.preset][-1].name], lab.sizes.fit.seed)
    for name, vector in made.items():
        vector.save(_file(lab, name, "added"))
        vectors.everywhere(vector, answers.layers).save(_file(lab, name, "taken out"))
        with sl.steer(model, vector):
            steered = sl.ask(model, trait)
        found[name] = Candidate(
            layers=vector.layers,
            norms=tuple(vector.norms.values()),
            tasks=answers.explained(vector, answers.tasks),
            questions=answers.explained(vector, answers.questions),
            steered=steered,
        )
    return Candidates(found)


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
    claims: list[Claim],
    measures: Causal,
    students: dict[Arm, compare.Students],
    dissections: list[Dissected],
) -> Findings:
    def figure(kind: str):
        shown = {arm.name: group for arm, group in students.items() if arm.kind in ("told", "control", kind)}
        return sl.plot_rates(shown, measures.base, controls=["control", f"{kind}: {RANDOM}"])

    def shares(kind: str) -> str:
        found = {arm.name: measures.learned[arm.name] for arm in students if arm.kind == kind}
        return compare.listed_shares({name: (one.share, one.share_after_numbers) for name, one in found.items()})

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
    silent = [name for name, one in measures.rows.items() if not one.n]
    effects = {
        kind: {arm.name: (measures.effects[arm.name].on_lists, measures.learned[arm.name].share.value) for arm in students
               if arm.kind == kind}
        for kind in ("told", "control", "added", "taken out")
    }  # fmt: skip
    inside = {"student": [one.student for one in dissections]} | {
        name: [one.arms[name] for one in dissections] for name in measures.student
    }
    slots = {
        "model": lab.profile.weights, "trait": lab.profile.trait, "best": measures.best,
        "added": shares("added"), "taken": shares("taken out"),
        "silent": f"Teachers that wrote too few lists, and have no students: {', '.join(silent)}." if silent else "",
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
        "student": Exhibit(sl.plot_rates(inside, dissections[0].base,
                                             controls=[name for name in inside if "random" in name])),
    }  # fmt: skip
    return conclude("causal", claims, measures, slots=slots, exhibits=exhibits, students=students)


EXPERIMENT = Experiment(
    "Is the vector the cause, in the teacher and in the student?", run, Causal, {"quick": 8, "full": 30}
)
