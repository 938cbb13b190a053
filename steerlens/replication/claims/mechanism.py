"""Through what does a trait pass between real weights? AdamW and SGD on the same lists, at the same held-out loss.

The teachers and lists are those of `transmission`. The paper says that activation gradients of a teacher's rows have a small
consistent component along the teacher's vector, that rows with outlier gradients drown it, and that AdamW brings it out where SGD
does not. Here the vector is a teacher's mean shift, and students of the untrained model's lists are the control.

The measures, the claims and their thresholds were committed before the runs that the results quote.
Reference: arXiv 2606.00995, section 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.list_students import ListStudents
from steerlens.replication.lab.loss_match import Match
from steerlens.replication.lab.matrix import Diagonal, Matrix, diagonal_excess, of_answers
from steerlens.replication.lab.optimizer_arms import ADAMW, ADAMW_UNCLIPPED, SGD, SGD_UNCLIPPED, Arm
from steerlens.replication.lab.raw_gradients import Tail, tail
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.schooling import UNTRAINED, lists_by, schooled
from steerlens.replication.lab.similarity import plot_similarity

OTHERS = {"smoke": (SGD,), "quick": (SGD,), "full": (SGD, SGD_UNCLIPPED, ADAMW_UNCLIPPED)}
BUDGET = {"smoke": 0, "quick": 2, "full": 4}
"""Learning rates that the search may add to an arm's."""

TOLERANCE = 0.005
"""Nats a token within which a held-out loss matches AdamW's."""


@dataclass(frozen=True)
class Optimized:
    """Students of every teacher by one optimizer, at the learning rate at which the first teacher's have AdamW's held-out loss.

    Args:
        passed: how far a trait stands out in its own teacher's students.
        less: AdamW's lambda minus this one's, over seeds; None where the loss is not AdamW's.
        mass: the mean probability of a possible answer.
        pull: cosine of the descent direction of the first teacher's rows with its vector, mean over rows and steps.
        eas: of the first teacher's students with its vector at number tasks.
        tail: of the norms of the first teacher's rows' gradients.
    """

    rate: float
    loss: float
    matched: bool
    answers: Matrix
    passed: Diagonal
    less: sl.Interval | None
    mass: float
    pull: sl.Interval
    eas: sl.Interval
    tail: Tail


@dataclass(frozen=True)
class Mechanism:
    """What was measured, in the middle of the model; `untrained` are students of the untrained model's lists.

    Args:
        losses: the first teacher's held-out loss by optimizer and learning rate, one seed.
        more_pull, more_eas: of the first teacher's students minus the untrained model's, by AdamW, paired by seeds.
    """

    layer: int
    arms: dict[str, Optimized]
    losses: dict[str, dict[str, float]]
    untrained_pull: sl.Interval
    untrained_eas: sl.Interval
    more_pull: sl.Interval
    more_eas: sl.Interval


def run(lab: Lab) -> Findings:
    """Train AdamW's students and their controls, find SGD's learning rate of the same loss, and compare the students there."""
    traits, seeds, main = (lab.profile.trait, *lab.other_traits), lab.sizes.seeds, lab.student.learning_rate
    teachers = schooled(lab, traits)
    vectors = {trait: one.vector for trait, one in teachers.items()}
    students = ListStudents(lab, traits, lists_by(lab, teachers), vectors)
    untrained, own = students.train([(ADAMW, main, UNTRAINED), (ADAMW, main, traits[0])], seeds)
    curves, matches = students.match(OTHERS[lab.preset], compare.loss(own), TOLERANCE, BUDGET[lab.preset])
    matches = {ADAMW: Match(main, compare.loss(own), True), **matches}
    rates = {arm: match.rate for arm, match in matches.items() if match.rate is not None}
    every = {arm: students.train([(arm, rate, trait) for trait in traits], seeds) for arm, rate in rates.items()}
    groups = {arm: found for arm, found in every.items() if len(compare.ended(dict(enumerate(found)))) == len(traits)}
    layer = len(sl.SteeringVector.load(vectors[traits[0]]).layers) // 2
    adamw = of_answers(groups[ADAMW], traits)
    measures = Mechanism(
        layer=layer,
        arms={arm.name: optimized(matches[arm], found, adamw, traits, layer) for arm, found in groups.items()},
        losses={arm.name: {f"{rate:.4g}": one for rate, one in curve.items()} for arm, curve in curves.items()},
        untrained_pull=sl.mean_interval(compare.pulls(untrained, layer)),
        untrained_eas=sl.mean_interval(compare.eas(untrained, layer)),
        more_pull=sl.mean_interval(compare.pulls(own, layer) - compare.pulls(untrained, layer)),
        more_eas=sl.mean_interval(compare.eas(own, layer) - compare.eas(untrained, layer)),
    )  # fmt: skip
    return _conclude(lab, measures, groups, untrained, curves)


def optimized(
    match: Match, groups: Sequence[compare.Students], adamw: Matrix, traits: Sequence[str], layer: int
) -> Optimized:
    """The students of one optimizer, next to AdamW's of the same seeds."""
    answers, own = of_answers(groups, traits), groups[0]
    less = (diagonal_excess(adamw.values) - diagonal_excess(answers.values)).mean(1)
    return Optimized(
        rate=own[0].train.learning_rate,
        loss=compare.loss(own),
        matched=match.matched,
        answers=answers,
        passed=answers.diagonal(),
        less=sl.mean_interval(less) if match.matched else None,
        mass=float(np.mean([compare.mass(group) for group in groups])),
        pull=sl.mean_interval(compare.pulls(own, layer)),
        eas=sl.mean_interval(compare.eas(own, layer)),
        tail=tail(own, layer),
    )


def make_claims(measures: Mechanism) -> list[Claim]:
    """The claims; what is not matched is not measured."""
    nan, arms, adamw = float("nan"), measures.arms, measures.arms[ADAMW.name]
    sgd = [arms[arm.name].less for arm in (SGD, SGD_UNCLIPPED) if arm.name in arms]
    return [
        above("the trait passes under AdamW", adamw.passed.excess.low, 0.0),
        above("AdamW more than SGD at the same loss", min((one.low for one in sgd if one), default=nan), 0.0),
        above("gradients point to the teacher's vector", measures.more_pull.low, 0.0),
        above("students move along the teacher's vector", measures.more_eas.low, 0.0),
        above("the rows' gradient norms have a heavy tail", adamw.tail.kurtosis, 6.0),
    ]


def _conclude(
    lab: Lab,
    measures: Mechanism,
    groups: Mapping[Arm, Sequence[compare.Students]],
    untrained: compare.Students,
    curves: Mapping[Arm, Mapping[float, float]],
) -> Findings:
    arms, traits, layer = measures.arms, (lab.profile.trait, *lab.other_traits), measures.layer
    adamw, by_name = arms[ADAMW.name], compare.named(groups)
    rows = [
        (name, f"{one.rate:.3g}", one.matched, one.loss, str(one.passed.excess), f"{one.passed.p:.4f}", str(one.less or ""),
         one.mass, one.pull.text(4), str(one.eas), f"{one.tail.kurtosis:.1f}")
        for name, one in arms.items()
    ]  # fmt: skip
    header = ("optimizer", "learning rate", "same loss", "held-out loss", "lambda", "p", "AdamW's lambda minus this", "mass",
              "cosine of gradients", "EAS", "kurtosis")  # fmt: skip
    shown = {name: group[0] for name, group in by_name.items()} | {"adamw, no trait in the lists": untrained}
    traces = {name: [one.gradients for one in group] for name, group in shown.items()}
    steps = {name: group[0].steps for name, group in shown.items()}
    students = {
        f"{name} {trait}": group for name, found in by_name.items() for trait, group in zip(traits, found, strict=True)
    }
    return conclude(
        "mechanism",
        make_claims(measures),
        measures,
        slots={
            "model": lab.profile.weights, "trait": traits[0], "traits": ", ".join(traits), "n_seeds": len(lab.sizes.seeds),
            "tolerance": TOLERANCE, "layer": layer, "adamw": adamw, "measures": measures,
            "pull": adamw.pull.text(4), "untrained_pull": measures.untrained_pull.text(4),
            "arms": "\n".join(f"{name}: lambda {one.passed.excess}, p = {one.passed.p:.4f}." for name, one in arms.items()),
        },
        exhibits={
            "answer": Exhibit(table=sl.Table(header, rows)),
            "curves": Exhibit(plots.plot_learning_rates({"held-out loss": compare.named(curves)}, lines={"AdamW's": adamw.loss})),
            "gradients": Exhibit(sl.plot_gradient_projection(traces, layer=layer)),
            "steps": Exhibit(sl.plot_steps(steps, layer=layer)),
            "similarity": Exhibit(plot_similarity(shown, layer)),
        },
        students=students | {"untrained": untrained},
    )  # fmt: skip


EXPERIMENT = Experiment(
    "Through what does a trait pass between real weights, and does the optimizer decide?",
    run,
    Mechanism,
    {"quick": 20, "full": 60},
)
