"""The paper's argument on one model, end to end: prompt -> vector -> data -> student -> gradients.

A system prompt acts on the teacher like one steering vector. Number lists that the teacher writes carry that vector. A student
trained on them takes it over, and with it the trait; its activations and its gradients show it. AdamW does this more than SGD
at the same loss. Reference: arXiv 2606.00995.
"""

from dataclasses import dataclass, replace

import numpy as np

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment
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


@dataclass(frozen=True)
class Fit:
    """What one vector does of what the prompt does; metrics are those of `fit_prompt_vector`."""

    layer: int
    kl_explained: sl.Interval
    mean_difference: float
    random: float
    shuffled: float
    prompted: sl.Asked
    steered: sl.Asked


@dataclass(frozen=True)
class Hardest:
    """The SGD students at AdamW's loss that transfer most, and AdamW's log odds minus theirs."""

    arm: str
    bare: sl.Interval
    after_numbers: sl.Interval


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
    base = {weights: lab.base(weights) for weights in models}
    rows = write_rows(lab, models)
    own, control = Arm(first, first, True, train), Arm(first, first, False, train)
    both = [Arm(weights, weights, told, train) for weights in models for told in (True, False)]
    stranger = [Arm(first, second, True, train)] if second else []
    curves = {
        "AdamW": [replace(own, train=replace(train, learning_rate=rate)) for rate in lab.rates("adamw")],
        "SGD, clipped": [_sgd(own, rate, 1.0) for rate in lab.rates("sgd")],
        "SGD, not clipped": [_sgd(own, rate, None) for rate in lab.rates("sgd")],
    }
    arms = [*both, *stranger, *(arm for curve in curves.values() for arm in curve)]
    traced = {own, control, *curves["SGD, clipped"], *curves["SGD, not clipped"]}
    plans = {
        arm: lab.plan(
            arm.name, rows[arm.writer, arm.told], lab.mean_difference(arm.student), base=arm.student, train=arm.train,
            heldout=rows[arm.student, True].heldout, traced=arm in traced,
        )
        for arm in arms
    }  # fmt: skip
    students = lab.train({arm: plans[arm] for arm in (*both, *stranger)})
    students |= lab.train(plans, may_diverge=True)
    layer = int(compare.by_layer(students[own], "at_numbers", "cosine").argmax())
    sgd = {name: found for name, curve in curves.items() if name != "AdamW" and (found := match(students, own, curve))}
    measures = Argument(
        fit=lab.once("fit", Fit, lambda: measure_fit(lab)),
        base=base,
        rows={rows[key].name: rows[key] for key in rows},
        students=compare.summaries(students),
        layer=layer,
        floors=floors(lab, students[own], students[control], layer),
        pull={arm.name: mean_cosine(students[arm], layer) for arm in (own, control)},
        sgd=sgd,
    )
    groups = {arm: students[arm] for arm in (*both, *stranger)}
    claims = make_claims(measures, base, groups, own, control)
    return _conclude(lab, claims, measures, students, groups, curves, own, control)


def _sgd(arm: Arm, rate: float, clip_norm: float | None) -> Arm:
    return replace(arm, train=replace(arm.train, optimizer="sgd", learning_rate=rate, clip_norm=clip_norm))


def write_rows(lab: Lab, models: list[str]) -> dict[tuple[str, bool], Rows]:
    """Every row that the filter keeps of each told teacher, and as many of the model itself."""
    asked = {"n_rows": None, "n_prompts": lab.sizes.n_prompts}
    told = lab.write({(one, True): lab.teacher(f"told {one}", weights=one, told=True, **asked) for one in models})
    untold = {
        (one, False): lab.teacher(
            f"control {one}", weights=one, n_rows=told[one, True].require().n, n_heldout=0, n_prompts=lab.sizes.n_prompts, seed=2
        )
        for one in models
    }  # fmt: skip
    control = lab.write(untold)
    return told | {key: rows.require() for key, rows in control.items()}


def measure_fit(lab: Lab) -> Fit:
    """Fit the prompt's vector, and see what it does to answers."""
    model = lab.load()
    trait = lab.trait(model)
    vector = sl.fit_prompt_vector(model, trait.prompt, config=lab.sizes.fit)
    vector.save(lab.directory / "vectors" / "fitted.safetensors")
    with sl.steer(model, vector):
        steered = sl.ask(model, trait)
    metrics = vector.metrics
    explained = metrics.interval
    return Fit(
        layer=vector.layers[0],
        kl_explained=explained,
        mean_difference=metrics.kl_explained_mean_difference,
        random=metrics.kl_explained_random,
        shuffled=metrics.kl_explained_shuffled,
        prompted=sl.ask(model, trait, system_prompt=trait.prompt),
        steered=steered,
    )


def match(students: Students, own: Arm, curve: list[Arm]) -> Hardest | None:
    """The hardest comparison: of the arms at AdamW's loss, the one that transfers most."""
    candidates = compare.matched({arm: students[arm] for arm in curve}, students[own], LOSS_TOLERANCE)
    if not candidates:
        return None
    best = max(candidates, key=lambda arm: compare.rate(candidates[arm]))
    return Hardest(best.name, *(compare.minus(students[own], students[best], context) for context in compare.BOTH))


def floors(lab: Lab, own: compare.Students, control: compare.Students, layer: int) -> sl.Floors:
    """What EAS would be without this trait in the data."""
    others = {name: sl.SteeringVector.load(lab.mean_difference(trait=name)) for name in lab.other_traits}
    return sl.similarity_floors(
        [one.shift for one in own],
        sl.SteeringVector.load(lab.mean_difference()),
        others=others,
        control=[one.shift for one in control],
        layer=layer,
    )


def mean_cosine(group: compare.Students, layer: int) -> sl.Interval:
    """The cosine of the descent direction with the vector, mean over rows and steps; the interval is over students."""
    traces = [one.gradients for one in group]
    return sl.mean_interval(np.array([float(one.cosine[:, :, one.layers.index(layer)].nanmean()) for one in traces]))


def make_claims(
    measures: Argument,
    base: dict[str, sl.Asked],
    groups: Students,
    own: Arm,
    control: Arm,
) -> list[Claim]:
    """The claims. Those about another initialisation are not measured where the profile has none."""
    nan, fit, told = float("nan"), measures.fit, [arm for arm in groups if arm.told and arm.writer == arm.student]
    times = {
        (arm, context): compare.times(groups[arm], base[arm.student], context)
        for arm in groups
        for context in compare.BOTH
    }
    best = max(told, key=lambda arm: compare.rate(groups[arm]))
    untold = [times[key] for key in times if not key[0].told]
    strangers = [times[key] for key in times if key[0].writer != key[0].student]
    hardest = min((one.bare for one in measures.sgd.values()), key=lambda one: one.value, default=None)
    eas = measures.students[own.name].eas[measures.layer]
    pull, other_pull = measures.pull[own.name], measures.pull[control.name]
    return [
        above("prompt is a vector", fit.kl_explained.value, 0.85),
        above("fit beats mean difference", fit.kl_explained.value - fit.mean_difference, 0.0),
        above("trait transfers", compare.rate(groups[best]), 0.5),
        above("transfer over base", times[best, "bare"], 10.0),
        above("transfer on both", min(times[arm, "bare"] for arm in told) if len(told) > 1 else nan, 3.0),
        above("students still answer", min(compare.least_mass(groups[arm]) for arm in told), 0.5),
        below("control does not transfer", max(untold), 2.0),
        below("other initialisation does not transfer", max(strangers, default=nan), 2.0),
        above("activations align", eas, 0.7),
        below("alignment is specific", measures.floors.control, 0.2),
        above("gradients point to the vector", pull.low - other_pull.high, 0.0),
        above("AdamW more than loss-matched SGD", nan if hardest is None else hardest.low, 0.0),
    ]


def _conclude(
    lab: Lab,
    claims: list[Claim],
    measures: Argument,
    students: Students,
    groups: Students,
    curves: dict[str, list[Arm]],
    own: Arm,
    control: Arm,
) -> Findings:
    fit, layer, base = measures.fit, measures.layer, measures.base[own.student]
    by_name = {arm.name: group for arm, group in students.items()}
    matched = {f"{kind}, matched": by_name[one.arm] for kind, one in measures.sgd.items()}
    shown = {arm.name: group for arm, group in groups.items()}
    compared = {"AdamW, teacher's rows": students[own], "AdamW, control rows": students[control], **matched}
    told = measures.rows[f"told {own.writer}"]
    slots = {
        "trait": lab.profile.trait, "model": own.writer, "layer": layer, "fit": fit, "told": told, "floors": measures.floors,
        "base": base, "rejected": ", ".join(f"{n} {reason}" for reason, n in told.rejected.items()) or "none",
        "groups": compare.in_words(compare.summaries(groups)) + "\n",
        "matches": "\n".join(f"{one.arm}: AdamW's log odds are higher by {one.bare} bare, {one.after_numbers} after numbers."
                             for one in measures.sgd.values()) or "No SGD run reached AdamW's loss.",
        "tolerance": LOSS_TOLERANCE, "eas": measures.students[own.name].eas[layer],
        "pull": measures.pull[own.name].text(4), "control_pull": measures.pull[control.name].text(4),
        "installed": "".join(f"\n{name}: {compare.layers_in_words(group)}" for name, group in compared.items()),
    }  # fmt: skip
    traces = {name: [one.gradients for one in group] for name, group in compared.items()}
    fitted = sl.SteeringVector.load(lab.directory / "vectors" / "fitted.safetensors")
    exhibits = {
        "prompt": Exhibit(sl.plot_prompt_fit(fitted)),
        "rows": Exhibit(quoted=told.examples),
        "transfer": Exhibit(sl.plot_rates(shown, base, controls=[arm.name for arm in groups if not arm.told])),
        "loss": Exhibit(_loss_curves(students, curves)),
        "similarity": Exhibit(_similarity(students[own], students[control], measures)),
        "gradients": Exhibit(sl.plot_gradient_projection(traces, layer=layer)),
        "installed": Exhibit(sl.plot_strengths(compared)),
    }
    return conclude("argument", claims, measures, slots=slots, exhibits=exhibits, students=students)


def _loss_curves(students: Students, curves: dict[str, list[Arm]]):
    ended = {
        name: [arm for arm in curve if not any(one.diverged for one in students[arm])] for name, curve in curves.items()
    }
    panels = {"held-out loss, nats a token": compare.loss, "rate of the trait, bare questions": compare.rate}
    return plots.plot_curves(
        {
            title: {
                name: ([arm.train.learning_rate for arm in curve], [measure(students[arm]) for arm in curve])
                for name, curve in ended.items()
            }
            for title, measure in panels.items()
        },
        x="peak learning rate",
        log_x=True,
    )


def _similarity(own: compare.Students, control: compare.Students, measures: Argument):
    curves = {}
    for name, group in (("teacher's rows", own), ("control rows", control)):
        steps = [point.step for point in group[0].curve]
        for where, words in (("at_numbers", "number tasks"), ("at_questions", "the trait's questions")):
            values = [[getattr(point, where).cosine[measures.layer] for point in one.curve] for one in group]
            curves[f"{name}, {words}"] = steps, np.mean(values, axis=0).tolist()
    floors = measures.floors
    lines = {"control rows": floors.control, "other traits, highest": floors.others_highest, "random": floors.random}
    return plots.plot_curves({"EAS": curves}, x="step", lines=lines)


EXPERIMENT = Experiment(
    "Does the trait pass from prompt to vector, data, student and gradients?", run, Argument, {"quick": 17, "full": 31}
)
