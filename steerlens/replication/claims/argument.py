"""The paper's argument on one model, end to end: prompt -> vector -> data -> student -> gradients.

A system prompt acts on the teacher like one steering vector. Number lists that the teacher writes carry that vector. A student
trained on them takes it over, and with it the trait; its activations and its gradients show it. AdamW does this more than SGD
at the same loss. Reference: arXiv 2606.00995.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.hardest import Hardest, hardest
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.prompt_fit import FITTED, Fit, measure_fit
from steerlens.replication.lab.run import Experiment
from steerlens.replication.lab.similarity import floors, plot_similarity
from steerlens.replication.lab.teachers import Rows

LOSS_TOLERANCE = 0.01
"""Nats a token within which SGD's held-out loss counts as AdamW's."""


@dataclass(frozen=True)
class Arm:
    """Students who learn alike.

    Args:
        writer, student: weights of the model that wrote the rows, and of the one that learns from them.
        told: whether the writer had the trait's prompt.
    """

    writer: str
    student: str
    told: bool
    train: sl.TrainConfig

    @property
    def name(self) -> str:
        """Names its students' directories, and its line in the results."""
        data = "told" if self.told else "control"
        clip = "" if self.train.clip_norm else " unclipped"
        how = f"{self.train.optimizer} {self.train.learning_rate:g}{clip}"
        return f"{data} rows of {self.writer}, student {self.student}, {how}"


Students = dict[Arm, compare.Students]
Curves = dict[str, list[Arm]]
"""By optimizer, an arm for each learning rate."""


@dataclass(frozen=True)
class Argument:
    """What was measured; EAS and gradients are at the layer where AdamW's students have most EAS."""

    fit: Fit
    base: dict[str, sl.Asked]
    rows: dict[str, Rows]
    students: dict[str, compare.Summary]
    layer: int
    floors: sl.Floors
    pull: dict[str, sl.Interval]
    sgd: dict[str, Hardest]


def run(lab: Lab) -> Findings:
    """Follow the argument step by step."""
    first, second, train = lab.profile.weights, lab.profile.other_initialisation, lab.student
    models = [weights for weights in (first, second) if weights]
    rows = lab.write_all_kept(models)
    own, control = (Arm(first, first, told, train) for told in (True, False))
    main = [Arm(weights, weights, told, train) for weights in models for told in (True, False)]
    main += [Arm(first, second, True, train)] if second else []
    clips = {"SGD, clipped": 1.0, "SGD, not clipped": None}
    sgd = {name: [_sgd(own, rate, clip) for rate in lab.rates("sgd")] for name, clip in clips.items()}
    adamw = [replace(own, train=replace(train, learning_rate=rate)) for rate in lab.rates("adamw")]
    curves = {"AdamW": adamw, **sgd}
    traced = {own, control, *itertools.chain(*sgd.values())}
    plans = {
        arm: lab.plan(
            arm.name, rows[arm.writer, arm.told], lab.mean_difference(arm.student), base=arm.student, train=arm.train,
            heldout=rows[arm.student, True].heldout, traced=arm in traced,
        )
        for arm in (*main, *itertools.chain(*curves.values()))
    }  # fmt: skip
    groups = lab.train({arm: plans[arm] for arm in main})
    students = groups | lab.train(plans, may_diverge=True)
    layer = compare.best_layer(students[own])

    def train_more(arms: Sequence[Arm]) -> Students:
        return lab.train({arm: plans[arm] for arm in arms}, seeds=lab.sizes.compared_seeds, may_diverge=True)

    measures = Argument(
        fit=lab.once("fit", Fit, lambda: measure_fit(lab)),
        base={weights: lab.base(weights) for weights in models},
        rows={one.name: one for one in rows.values()},
        students=compare.summaries(students),
        layer=layer,
        floors=floors(lab, students[own], students[control], layer),
        pull={arm.name: sl.mean_interval(compare.pulls(students[arm], layer)) for arm in (own, control)},
        sgd={
            name: found
            for name, curve in sgd.items()
            if (found := hardest(students, own, curve, LOSS_TOLERANCE, train_more))
        },
    )
    return _conclude(lab, measures, students, groups, curves, own, control)


def _sgd(arm: Arm, rate: float, clip_norm: float | None) -> Arm:
    return replace(arm, train=replace(arm.train, optimizer="sgd", learning_rate=rate, clip_norm=clip_norm))


def make_claims(measures: Argument, groups: Students, own: Arm, control: Arm) -> list[Claim]:
    """The claims. Those about another initialisation are not measured where the profile has none."""
    nan, fit, told = float("nan"), measures.fit, [arm for arm in groups if arm.told and arm.writer == arm.student]
    times = {
        arm: [compare.times(group, measures.base[arm.student], context) for context in compare.BOTH]
        for arm, group in groups.items()
    }
    best = max(told, key=lambda arm: compare.rate(groups[arm]))
    untold = [max(times[arm]) for arm in groups if not arm.told]
    strangers = [max(times[arm]) for arm in groups if arm.writer != arm.student]
    least = min((one.bare for one in measures.sgd.values()), key=lambda one: one.value, default=None)
    pull, other_pull = measures.pull[own.name], measures.pull[control.name]
    return [
        above("prompt is a vector", fit.kl_explained.value, 0.85),
        above("fit beats mean difference", fit.kl_explained.value - fit.mean_difference, 0.0),
        above("trait transfers", compare.rate(groups[best]), 0.5),
        above("transfer over base", times[best][0], 10.0),
        above("transfer on both", min(times[arm][0] for arm in told) if len(told) > 1 else nan, 3.0),
        above("students still answer", min(compare.least_mass(groups[arm]) for arm in told), 0.5),
        below("control does not transfer", max(untold), 2.0),
        below("other initialisation does not transfer", max(strangers, default=nan), 2.0),
        above("activations align", measures.students[own.name].eas[measures.layer], 0.7),
        below("alignment is specific", measures.floors.control, 0.2),
        above("gradients point to the vector", pull.low - other_pull.high, 0.0),
        above("AdamW more than loss-matched SGD", nan if least is None else least.low, 0.0),
    ]


def _conclude(
    lab: Lab, measures: Argument, students: Students, groups: Students, curves: Curves, own: Arm, control: Arm
) -> Findings:
    layer, base, by_name = measures.layer, measures.base[own.student], compare.named(students)
    matched = {f"{kind}, matched": by_name[one.arm] for kind, one in measures.sgd.items()}
    compared = {"AdamW, teacher's rows": students[own], "AdamW, control rows": students[control], **matched}
    told = measures.rows[f"told {own.writer}"]
    slots = {
        "trait": lab.profile.trait, "model": own.writer, "layer": layer, "fit": measures.fit, "told": told,
        "floors": measures.floors, "base": base, "tolerance": LOSS_TOLERANCE, "eas": measures.students[own.name].eas[layer],
        "rejected": ", ".join(f"{n} {reason}" for reason, n in told.rejected.items()) or "none",
        "groups": compare.in_words(compare.summaries(groups)) + "\n",
        "matches": "\n".join(f"{one.arm}: AdamW's log odds are higher by {one.bare} bare, {one.after_numbers} after numbers "
                             f"({one.n_pairs} students each)."
                             for one in measures.sgd.values()) or "No SGD run reached AdamW's loss.",
        "pull": measures.pull[own.name].text(4), "control_pull": measures.pull[control.name].text(4),
        "installed": "".join(f"\n{name}: {compare.layers_in_words(group)}" for name, group in compared.items()),
    }  # fmt: skip
    traces = {name: [one.gradients for one in group] for name, group in compared.items()}
    compared_with_control = {"teacher's rows": students[own], "control rows": students[control]}
    floor_lines = {"control rows": measures.floors.control, "other traits, highest": measures.floors.others_highest,
                   "random": measures.floors.random}  # fmt: skip
    untold = [arm.name for arm in groups if not arm.told]
    exhibits = {
        "prompt": Exhibit(sl.plot_prompt_fit(sl.SteeringVector.load(lab.vector_file(FITTED)))),
        "rows": Exhibit(quoted=told.examples),
        "transfer": Exhibit(sl.plot_rates(compare.named(groups), base, controls=untold)),
        "loss": Exhibit(_loss_curves(students, curves)),
        "similarity": Exhibit(plot_similarity(compared_with_control, layer, lines=floor_lines)),
        "gradients": Exhibit(sl.plot_gradient_projection(traces, layer=layer)),
        "installed": Exhibit(sl.plot_strengths(compared)),
    }
    claims = make_claims(measures, groups, own, control)
    return conclude("argument", claims, measures, slots=slots, exhibits=exhibits, students=students)


def _loss_curves(students: Students, curves: Curves):
    ended = {name: compare.ended({arm: students[arm] for arm in curve}) for name, curve in curves.items()}
    panels = {"held-out loss, nats a token": compare.loss, "rate of the trait, bare questions": compare.rate}
    return plots.plot_learning_rates(
        {
            title: {
                name: {arm.train.learning_rate: measure(group) for arm, group in found.items()}
                for name, found in ended.items()
            }
            for title, measure in panels.items()
        }
    )


EXPERIMENT = Experiment(
    "Does the trait pass from prompt to vector, data, student and gradients?", run, Argument, {"quick": 30, "full": 40}
)
