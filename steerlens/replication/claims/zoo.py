"""What passes on, and could it be told beforehand? Every prompt is examined first, and taught afterwards.

The zoo has personas, prompts of other kinds, prompts that are not one vector, and personas for a model to whom they say nothing
in lists. Reference: arXiv 2606.00995, section 4: what is not steerable is not learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.predictions import PREDICTORS, Outcome, Prediction, calibrate, predict
from steerlens.replication.lab.prompts import Examination, Examined, Member, PromptKind, members
from steerlens.replication.lab.run import Experiment

BAR = 0.95
"""A trait has been passed on where its transfer is above this quantile of that of traits which no teacher was told."""

Students = Mapping[Member | str, compare.Students]
"""By the prompt that their teacher was told; by its weights where it was told nothing."""


@dataclass(frozen=True)
class Zoo:
    """What was measured; `bar` is the transfer above which a trait has passed on, Brier scores are of left-out traits."""

    outcomes: dict[str, Outcome]
    silent: tuple[str, ...]
    bar: float
    predictions: dict[str, Prediction]
    brier: float
    brier_of_share: float
    eas: dict[str, dict[str, float]]


def run(lab: Lab) -> Findings:
    """Examine every prompt, then teach, then see what told beforehand."""
    zoo = members(lab)
    examinations = {one: Examination.of(one, lab) for one in zoo}
    examined = lab.run(examinations, "prompts")
    first: dict[str, Member] = {}
    for one in zoo:
        first.setdefault(one.weights, one)
    controls = {weights: lab.teacher(f"control {weights}", weights=weights) for weights in first}
    rows = lab.write({one: one.teacher(lab) for one in zoo} | controls)
    taught = [one for one in zoo if rows[one].n]

    def plan(key: Member | str, one: Member) -> sl.StudentPlan:
        found = rows[key].require()
        return lab.plan(found.name, found, examinations[one].vector, base=one.weights, trait=one.trait)

    students: Students = lab.train(
        {one: plan(one, one) for one in taught} | {weights: plan(weights, one) for weights, one in first.items()}
    )
    bar = strangers_bar(taught, students)
    outcomes = [outcome(one, examined[one], students, bar) for one in taught]
    measures = Zoo(
        outcomes={one.name: found for one, found in zip(taught, outcomes, strict=True)},
        silent=tuple(one.name for one in zoo if not rows[one].n),
        bar=bar,
        predictions={key: predict(outcomes, key) for key in PREDICTORS},
        brier=calibrate(outcomes, lambda one: one.known.verdict),
        brier_of_share=calibrate(outcomes, lambda _: "any"),
        eas=similarities([one for one in taught if one.kind == "persona"], students, examinations),
    )
    return _conclude(lab, measures, students)


def outcome(one: Member, known: Examined, students: Students, bar: float) -> Outcome:
    """What a prompt's students learned."""
    group, transfer = students[one], passed(students, one, one.trait)
    return Outcome(one.kind, one.trait, known, compare.rate(group), compare.mass(group), transfer, transfer > bar)


def passed(students: Students, one: Member, trait: str) -> float:
    """Mean log odds of a trait in a member's students, over those of the control's students."""
    return compare.log_odds_of(trait, students[one]) - compare.log_odds_of(trait, students[one.weights])


def strangers_bar(taught: list[Member], students: Students) -> float:
    """What students reach in 95 % of cases for a trait that their teacher was not told, over pairs of personas."""
    personas = [one for one in taught if one.kind.startswith("persona")]
    reached = [
        passed(students, one, other.trait)
        for one in personas
        for other in personas
        if one.weights == other.weights and one.trait != other.trait
    ]
    return float(np.quantile(reached, BAR)) if reached else float("nan")


def similarities(
    personas: list[Member], students: Students, examinations: dict[Member, Examination]
) -> dict[str, dict[str, float]]:
    """EAS of each persona's students, and the control's, with each persona's vector, at the layer where the own is highest.

    Raises:
        ValueError: no persona's teacher wrote rows.
    """
    if not personas:
        raise ValueError("No persona's teacher wrote enough rows. Raise n_prompts or lower n_rows in the profile.")
    vectors = {one.name: sl.SteeringVector.load(examinations[one].vector) for one in personas}
    groups = {one.name: students[one] for one in personas} | {"control": students[personas[0].weights]}
    cosines = compare.cosines(groups, vectors)
    best = int(np.sum([cosines[name][name] for name in vectors], axis=0).argmax())
    return {group: {name: float(row[name][best]) for name in vectors} for group, row in cosines.items()}


def make_claims(trait: str, measures: Zoo) -> list[Claim]:
    """The claims; 0.86 is what arXiv 2606.00995 reports of 16 animals on one model."""
    nan, found = float("nan"), measures.predictions

    def share(kind: PromptKind) -> float:
        own = [one.passed_on for one in measures.outcomes.values() if one.kind == kind]
        return float(np.mean(own)) if own else nan

    own = measures.outcomes.get(trait)
    contexts = [one.transfer for one in measures.outcomes.values() if one.kind == "not one vector"]
    less = float(np.mean(contexts)) - own.transfer if contexts and own else nan
    return [
        above("personas pass on", share("persona"), 0.8),
        below("deaf teachers' do not", share("persona, never seen with numbers"), 0.2),
        above("steerability tells which pass on", found["steerability"].all_prompts.value, 0.86),
        above("kl_explained tells which pass on", found["kl_explained"].all_prompts.value, 0.86),
        above("analyze_prompt tells which pass on", found["expected"].all_prompts.value, 0.86),
        above("steerability tells which take over", found["steerability"].takes_over.value, 0.86),
        below("what is not one vector passes on less", less, 0.0),
        below("a verdict says more than a share", measures.brier / measures.brier_of_share, 0.8),
    ]


def _conclude(lab: Lab, measures: Zoo, students: Students) -> Findings:
    found, outcomes = measures.predictions, measures.outcomes
    kinds = {
        kind: {name: (one.known.steerability, one.transfer) for name, one in outcomes.items() if one.kind == kind}
        for kind in dict.fromkeys(one.kind for one in outcomes.values())
    }
    rows = [
        (name, one.kind, one.known.steerability, one.known.kl_explained, one.known.verdict, one.rate, one.mass, one.transfer,
         one.passed_on)
        for name, one in sorted(outcomes.items(), key=lambda item: -item[1].transfer)
    ]  # fmt: skip
    header = ("name", "kind", "steerability", "kl_explained", "verdict", "students' rate", "mass", "transfer",
              "passed on")  # fmt: skip
    series = {
        "passed on, all prompts": {PREDICTORS[key]: one.all_prompts for key, one in found.items()},
        "half of all answers, personas": {PREDICTORS[key]: one.takes_over for key, one in found.items()},
    }
    own = [row[name] for name, row in measures.eas.items() if name in row]
    slots = {
        "passed": sum(one.passed_on for one in outcomes.values()), "n": len(outcomes), "bar": measures.bar,
        "brier": measures.brier, "share": measures.brier_of_share, "eas_median": float(np.median(own)), "eas_lowest": min(own),
        "silent": f"Too few lists were written under: {', '.join(measures.silent)}." if measures.silent else "",
        "predictors": "\n".join(f"{PREDICTORS[key]}: AUC {one.all_prompts} over all prompts, {one.takes_over} for personas that "
                                f"take over; with the transfer r {one.pearson}, rank correlation {one.spearman}."
                                for key, one in found.items()),
    }  # fmt: skip
    exhibits = {
        "prompts": Exhibit(plots.plot_points(kinds, x=PREDICTORS["steerability"], y="transfer, log odds", line=measures.bar),
                           sl.Table(header, rows)),
        "eas": Exhibit(plots.plot_matrix(measures.eas, rows="students of", columns="vector of", title="EAS")),
        "predictors": Exhibit(plots.plot_intervals(series, title="area under the ROC curve", line=0.5)),
    }  # fmt: skip
    claims = make_claims(lab.profile.trait, measures)
    return conclude("zoo", claims, measures, slots=slots, exhibits=exhibits, students=students)


EXPERIMENT = Experiment(
    "Which prompts pass on, and what could have told so beforehand?", run, Zoo, {"quick": 12, "full": 60}
)
