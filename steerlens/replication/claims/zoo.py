"""What passes on, and could it be told beforehand? Every prompt is examined first, and taught afterwards.

The zoo has personas, prompts of other kinds, prompts that are not one vector, and personas for a model to whom they say nothing
in lists. Reference: arXiv 2606.00995, section 4: what is not steerable is not learned.
"""

from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.prompts import Examination, Examined, Member, PromptKind, members
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.teachers import Rows, file_name

PREDICTORS = {
    "steerability": "steerability (clean peak)",
    "kl_explained": "kl_explained, fitted vector",
    "numbers": "nats that the prompt changes in numbers",
    "harmlessness": "minus damage, in units of the prompt's effect",
    "expected": "verdict of analyze_prompt",
}
"""What is known of a prompt before any student is trained."""

BAR = 0.95
"""A trait has been passed on where its transfer is above this quantile of that of traits which no teacher was told."""
MAJORITY = 0.5


@dataclass(frozen=True)
class Outcome:
    """What the students of a prompt learned: log odds of its trait over the control's students, and whether it passed on."""

    kind: PromptKind
    trait: str
    known: Examined
    rate: float
    mass: float
    transfer: float
    passed_on: bool


@dataclass(frozen=True)
class Prediction:
    """How well one predictor tells which prompts pass on, and which personas take over half of all answers."""

    all_prompts: sl.Interval
    takes_over: sl.Interval
    pearson: sl.Interval
    spearman: sl.Interval


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
    zoo, profile = members(lab), lab.profile
    examinations = {
        one: Examination(one, profile.dtype, lab.sizes.fit, profile.fit_layers, profile.begun,
                         lab.directory / "vectors" / f"{file_name(one.name)}.json")
        for one in zoo
    }  # fmt: skip
    examined = lab.run(examinations, "prompts")
    told = {
        one: lab.teacher(
            one.name, weights=one.weights, trait=one.trait, prompt=one.prompt, chat_template=one.chat_template
        )
        for one in zoo
    }
    models = dict.fromkeys(one.weights for one in zoo)
    untold = {weights: lab.teacher(f"control {weights}", weights=weights) for weights in models}
    rows = lab.write(told | untold)
    first = {one.weights: one for one in reversed(zoo)}

    def plan(name: str, found: Rows, one: Member) -> sl.StudentPlan:
        return lab.plan(name, found, examinations[one].vector, base=one.weights, trait=one.trait)

    plans: dict[Member | str, sl.StudentPlan] = {
        one: plan(told[one].name, rows[one], one) for one in zoo if rows[one].n
    }
    plans |= {weights: plan(untold[weights].name, rows[weights].require(), first[weights]) for weights in untold}
    students = lab.train(plans)
    taught = [one for one in zoo if one in students]
    bar = strangers_bar(taught, students)
    outcomes = {}
    for one in taught:
        transfer, group = passed(students, one, one.trait), students[one]
        outcomes[one.name] = Outcome(
            one.kind, one.trait, examined[one], compare.rate(group), compare.mass(group), transfer, transfer > bar
        )
    brier = calibrate([*outcomes.values()], lambda one: one.known.verdict)
    measures = Zoo(
        outcomes=outcomes,
        silent=tuple(one.name for one in zoo if one not in students),
        bar=bar,
        predictions={key: predict([*outcomes.values()], key) for key in PREDICTORS},
        brier=brier,
        brier_of_share=calibrate([*outcomes.values()], lambda _: "any"),
        eas=similarities([one for one in taught if one.kind == "persona"], students, examinations, profile.weights),
    )
    return _conclude(lab, measures, students)


def passed(students: dict, one: Member, trait: str) -> float:
    """Mean log odds of a trait in a member's students, over those of the control's students."""
    own, control = (
        np.mean(sl.log_odds(np.array([student.bare.distribution[trait] for student in students[key]])))
        for key in (one, one.weights)
    )
    return float(own - control)


def strangers_bar(taught: list[Member], students: dict) -> float:
    """What students reach in 95 % of cases for a trait that their teacher was not told, over pairs of personas."""
    personas = [one for one in taught if one.kind.startswith("persona")]
    reached = [
        passed(students, one, other.trait)
        for one in personas
        for other in personas
        if one.weights == other.weights and one.trait != other.trait
    ]
    return float(np.quantile(reached, BAR)) if reached else float("nan")


def predict(outcomes: list[Outcome], key: str) -> Prediction:
    """How well one thing that was known beforehand tells what was learned; intervals are over prompts."""

    def column(of: list[Outcome], value) -> np.ndarray:
        return np.array([float(value(one)) for one in of])

    def ranks(one: np.ndarray, other: np.ndarray) -> float:
        return sl.correlation(one, other, ranks=True)

    personas = [one for one in outcomes if one.kind == "persona"]
    scores, own = (column(part, lambda one: getattr(one.known, key)) for part in (outcomes, personas))
    passed_on, half = column(outcomes, lambda one: one.passed_on), column(personas, lambda one: one.rate >= MAJORITY)
    transfer = column(personas, lambda one: one.transfer)
    return Prediction(
        sl.bootstrap_interval(sl.concordance, scores, passed_on),
        sl.bootstrap_interval(sl.concordance, own, half),
        sl.bootstrap_interval(sl.correlation, own, transfer),
        sl.bootstrap_interval(ranks, own, transfer),
    )


def calibrate(outcomes: list[Outcome], label) -> float:
    """Brier score of how often prompts of other traits with the same label passed on (Laplace's rule)."""
    labels, traits = (np.array([of(one) for one in outcomes]) for of in (label, lambda one: one.trait))
    happened = np.array([one.passed_on for one in outcomes])
    others = (labels[:, None] == labels) & (traits[:, None] != traits)
    return sl.brier((1 + (others & happened).sum(1)) / (2 + others.sum(1)), happened)


def similarities(
    personas: list[Member], students: dict, examinations: dict, control: str
) -> dict[str, dict[str, float]]:
    """EAS of each persona's students, and the control's, with each persona's vector, at the layer where the own is highest."""
    vectors = {one.name: sl.SteeringVector.load(examinations[one].vector) for one in personas}
    groups = {one.name: students[one] for one in personas} | {"control": students[control]}
    cosines = {
        (group, name): np.mean([[*one.shift.cosine(vector).values()] for one in records], axis=0)
        for group, records in groups.items()
        for name, vector in vectors.items()
    }
    best = int(np.sum([cosines[name, name] for name in vectors], axis=0).argmax())
    return {group: {name: float(cosines[group, name][best]) for name in vectors} for group in groups}


def make_claims(trait: str, measures: Zoo) -> list[Claim]:
    """The claims; 0.86 is what arXiv 2606.00995 reports of 16 animals on one model."""
    nan, found = float("nan"), measures.predictions

    def share(kind: PromptKind) -> float:
        own = [one.passed_on for one in measures.outcomes.values() if one.kind == kind]
        return float(np.mean(own)) if own else nan

    own = measures.outcomes.get(trait)
    contexts = [one.transfer for one in measures.outcomes.values() if one.kind == "not one vector"]
    return [
        above("personas pass on", share("persona"), 0.8),
        below("deaf teachers' do not", share("persona, never seen with numbers"), 0.2),
        above("steerability tells which pass on", found["steerability"].all_prompts.value, 0.86),
        above("kl_explained tells which pass on", found["kl_explained"].all_prompts.value, 0.86),
        above("analyze_prompt tells which pass on", found["expected"].all_prompts.value, 0.86),
        above("steerability tells which take over", found["steerability"].takes_over.value, 0.86),
        below(
            "what is not one vector passes on less",
            float(np.mean(contexts)) - own.transfer if contexts and own else nan,
            0.0,
        ),
        below("a verdict says more than a share", measures.brier / measures.brier_of_share, 0.8),
    ]


def _conclude(lab: Lab, measures: Zoo, students: dict) -> Findings:
    found = measures.predictions
    kinds = {
        kind: {
            name: (one.known.steerability, one.transfer) for name, one in measures.outcomes.items() if one.kind == kind
        }
        for kind in dict.fromkeys(one.kind for one in measures.outcomes.values())
    }
    rows = [
        (name, one.kind, one.known.steerability, one.known.kl_explained, one.known.verdict, one.rate, one.mass, one.transfer,
         one.passed_on)
        for name, one in sorted(measures.outcomes.items(), key=lambda item: -item[1].transfer)
    ]  # fmt: skip
    header = (
        "name",
        "kind",
        "steerability",
        "kl_explained",
        "verdict",
        "students' rate",
        "mass",
        "transfer",
        "passed on",
    )
    series = {
        "passed on, all prompts": {PREDICTORS[key]: one.all_prompts for key, one in found.items()},
        "half of all answers, personas": {PREDICTORS[key]: one.takes_over for key, one in found.items()},
    }
    own = [row[name] for name, row in measures.eas.items() if name in row]
    passed_on = sum(one.passed_on for one in measures.outcomes.values())
    slots = {
        "passed": passed_on, "n": len(measures.outcomes), "bar": measures.bar, "brier": measures.brier,
        "share": measures.brier_of_share, "eas_median": float(np.median(own)), "eas_lowest": min(own),
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
    named = {key if isinstance(key, str) else key.name: group for key, group in students.items()}
    return conclude(
        "zoo", make_claims(lab.profile.trait, measures), measures, slots=slots, exhibits=exhibits, students=named
    )


EXPERIMENT = Experiment(
    "Which prompts pass on, and what could have told so beforehand?", run, Zoo, {"quick": 12, "full": 60}
)
