"""Is any vector distilled? Teachers are steered by vectors with and without a meaning, and write number lists.

If training on lists installs whatever vector steered their author, it should do so for vectors without any meaning too. Only
behaviour should depend on what a vector means. Reference: arXiv 2606.00995, section 5.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

import steerlens as sl
from steerlens.replication.lab import compare, plots
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import Claim, above, below
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

VectorKind = Literal["semantic", "random", "unembedding"]
EPOCHS = 10
"""As the paper's students in this experiment."""

DOSES = {"smoke": (0.5,), "quick": (0.5, 0.75), "full": (0.5, 0.75)}
N_OTHERS = {"smoke": 0, "quick": 1, "full": 2}
TOKENS = {"smoke": ("water",), "quick": ("water",), "full": ("owl", "water")}
LISTS_KEPT, N_TRIED, MOST_HALVINGS = 0.3, 60, 5
"""A vector without meaning is halved until this share of the answers to so many tasks passes the filter."""


@dataclass(frozen=True)
class Arm:
    """A teacher steered by a vector, and the trait that its students are asked for."""

    name: str
    kind: VectorKind
    trait: str
    strength: float = 1.0
    vector: str = ""

    @property
    def direction(self) -> str:
        """Arms of one direction differ in strength alone."""
        return self.vector or self.name


CONTROL = "control"


@dataclass(frozen=True)
class Steered:
    """A vector that steers a teacher: its norm, and what the model itself answers with it."""

    arm: Arm
    norm: float
    own: sl.Asked


@dataclass(frozen=True)
class Vectors:
    """All of them, at one layer."""

    layer: int
    steered: tuple[Steered, ...]


@dataclass(frozen=True)
class Distilled:
    """What the students of an arm took over.

    Args:
        eas: with the vector that steered their teacher, one a student.
        highest_floor: the largest mean EAS of another group's students with the same vector.
        rate_over_control: of the arm's trait, over the control students' rate of it.
        answers_moved: total variation between the students' and the control's mean answers.
    """

    eas: tuple[float, ...]
    highest_floor: float
    rates: tuple[float, ...]
    rate_over_control: float
    mass: float
    answers_moved: float
    strength_numbers: float
    strength_questions: float


@dataclass(frozen=True)
class Distillation:
    """What was measured."""

    vectors: Vectors
    cosines: dict[str, dict[str, float]]
    distilled: dict[str, Distilled]
    silent: tuple[str, ...]
    answers_floor: float
    rise: sl.Interval


def run(lab: Lab) -> Findings:
    """Steer teachers, let them write, train students, and see what these took over."""
    vectors = lab.once("vectors", Vectors, lambda: make_vectors(lab))
    teachers = {CONTROL: lab.teacher(CONTROL)} | {
        one.arm.name: lab.teacher(one.arm.name, vector=_path(lab, one.arm)) for one in vectors.steered
    }
    rows = lab.write(teachers)
    rows[CONTROL].require()
    first = vectors.steered[0].arm
    arms = {one.arm.name: one.arm for one in vectors.steered if rows[one.arm.name].n}
    plans = {name: (rows[name], _path(lab, arm), arm.trait) for name, arm in arms.items()}
    plans[CONTROL] = rows[CONTROL], _path(lab, first), first.trait
    train = replace(lab.student, epochs=EPOCHS)
    students = lab.train(
        {name: lab.plan(name, data, vector, trait=trait, train=train) for name, (data, vector, trait) in plans.items()}
    )
    cosines = mean_cosines(lab, students, [arm for arm in arms.values() if arm.strength == 1])
    dose = sorted(
        (arm for arm in arms.values() if (arm.kind, arm.trait) == (first.kind, first.trait)), key=lambda a: a.strength
    )
    measures = Distillation(
        vectors=vectors,
        cosines=cosines,
        distilled={name: distilled(arm, arms, students, cosines) for name, arm in arms.items()},
        silent=tuple(name for name, one in rows.items() if not one.n),
        answers_floor=answers_floor(students[CONTROL]),
        rise=compare.minus(students[dose[-1].name], students[dose[0].name]),
    )
    return _conclude(lab, measures, arms, dose, students)


def _path(lab: Lab, arm: Arm):
    return lab.directory / "vectors" / f"{arm.name.replace(chr(39), '')}.safetensors"


def make_vectors(lab: Lab) -> Vectors:
    """Make every vector and save it; ask the model steered by each."""
    model, steered = lab.load(), []
    layer = (lab.profile.fit_layers or (0,))[0]
    for arm, vector in _made(lab, model, layer):
        vector.save(_path(lab, arm))
        with sl.steer(model, vector):
            steered.append(Steered(arm, vector.norms[layer], sl.ask(model, lab.trait(model, arm.trait))))
    return Vectors(layer, tuple(steered))


def _made(lab: Lab, model: "TransformerBridge", layer: int) -> Iterator[tuple[Arm, sl.SteeringVector]]:
    """The trait's vector at several strengths, other traits', Gaussian ones, and rows of the unembedding."""
    own, norm = lab.profile.trait, 0.0

    def vector(direction: torch.Tensor, method: str) -> sl.SteeringVector:
        source = sl.VectorSource.of(model, method=method)
        return sl.SteeringVector((layer,), (norm * direction / direction.norm()).detach().float().cpu()[None], source)

    for name in (own, *lab.other_traits[: N_OTHERS[lab.preset]]):
        trait = lab.trait(model, name)
        tasks = sl.number_prompts(4 * len(trait.questions), model, seed=0)
        fitted = sl.fit_prompt_vector(
            model, trait.prompt, layers=layer, questions=[*tasks, *trait.questions], config=lab.sizes.fit
        )
        norm = norm or fitted.norms[layer]
        yield Arm(name, "semantic", name), fitted
        for strength in DOSES[lab.preset] if name == own else ():
            yield Arm(f"{name} x {strength:g}", "semantic", name, strength, name), strength * fitted
    generator = torch.Generator().manual_seed(lab.sizes.fit.seed)
    for number in range(1, lab.sizes.n_random + 1):
        noise = torch.randn(model.cfg.d_model, generator=generator)
        yield Arm(f"random {number}", "random", own), weakened(model, vector(noise, "Gaussian"))
    for token in TOKENS[lab.preset]:
        row = vector(unembedding_row(model, token), f"unembedding of {token!r}")
        yield Arm(f"token '{token}'", "unembedding", own), weakened(model, row)


def weakened(model: "TransformerBridge", vector: sl.SteeringVector) -> sl.SteeringVector:
    """The vector, halved until the steered model answers number tasks with lists often enough."""
    prompts = sl.number_prompts(N_TRIED, model, seed=3)
    for _ in range(MOST_HALVINGS):
        if sl.keep_number_lists(sl.sample_teacher(model, prompts, vector=vector, seed=3)).kept_share >= LISTS_KEPT:
            break
        vector = 0.5 * vector
    return vector


def unembedding_row(model: "TransformerBridge", token: str) -> torch.Tensor:
    """The direction that the logit of the word's first token reads.

    Raises:
        ValueError: the tokenizer does not know the word.
    """
    ids = model.tokenizer.encode(token, add_special_tokens=False)
    if not ids or ids[0] == model.tokenizer.unk_token_id:
        raise ValueError(f"The tokenizer does not know the token {token!r}. Name others.")
    return model.W_U[:, ids[0]].detach().float().cpu()


def mean_cosines(lab: Lab, students: dict[str, compare.Students], arms: list[Arm]) -> dict[str, dict[str, float]]:
    """Mean cosine of each group's shift at number tasks with each vector of full strength."""
    vectors = {arm.name: sl.SteeringVector.load(_path(lab, arm)) for arm in arms}
    return {
        group: {
            name: float(np.mean([one.shift.cosine(vector)[vector.layers[0]] for one in records]))
            for name, vector in vectors.items()
        }
        for group, records in students.items()
    }


def distilled(
    arm: Arm, arms: dict[str, Arm], students: dict[str, compare.Students], cosines: dict[str, dict[str, float]]
) -> Distilled:
    """An arm's students next to its floors, which are the students who never met its vector, and to the control's."""
    group, control = students[arm.name], students[CONTROL]
    strangers = [CONTROL, *(other.name for other in arms.values() if other.direction != arm.direction)]
    return Distilled(
        eas=tuple(float(one.at_numbers.cosine[0]) for one in group if one.at_numbers is not None),
        highest_floor=max((cosines[name].get(arm.name, -1.0) for name in strangers), default=float("nan")),
        rates=tuple(compare.rates(group)),
        rate_over_control=compare.rate(group) / compare.mean_answers(control)[arm.trait],
        mass=compare.mass(group),
        answers_moved=compare.answers_moved(group, control),
        strength_numbers=float(compare.by_layer(group, "at_numbers", "strength")[0]),
        strength_questions=float(compare.by_layer(group, "at_questions", "strength")[0]),
    )


def answers_floor(control: compare.Students) -> float:
    """How far one control student's answers are from the others', on average; 0 where there is one."""
    pairs = [([one], [other for other in control if other is not one]) for one in control if len(control) > 1]
    return float(np.mean([compare.answers_moved(*pair) for pair in pairs])) if pairs else 0.0


def make_claims(measures: Distillation, arms: dict[str, Arm]) -> list[Claim]:
    """The claims are about vectors of full strength, and one is about strength."""
    nan = float("nan")

    def of(*kinds: VectorKind) -> list[Distilled]:
        return [measures.distilled[name] for name, arm in arms.items() if arm.kind in kinds and arm.strength == 1]

    def lead(*kinds: VectorKind) -> float:
        return min((float(np.mean(one.eas)) - one.highest_floor for one in of(*kinds)), default=nan)

    moved = min((one.answers_moved for one in of("semantic")), default=nan)
    return [
        above("semantic vectors are distilled", lead("semantic"), 0.2),
        above("random vectors are distilled", lead("random"), 0.2),
        above("unembedding vectors are distilled", lead("unembedding"), 0.2),
        above("behaviour with meaning", min((one.rate_over_control for one in of("semantic")), default=nan), 3.0),
        below("no behaviour without",
              max((one.answers_moved for one in of("random", "unembedding")), default=nan) / moved, 0.5),
        above("dose and response", measures.rise.low, 0.0),
    ]  # fmt: skip


def _conclude(
    lab: Lab, measures: Distillation, arms: dict[str, Arm], dose: list[Arm], students: dict[str, compare.Students]
) -> Findings:
    steered = {one.arm.name: one for one in measures.vectors.steered}
    full = {name: one for name, one in measures.distilled.items() if arms[name].strength == 1}
    kinds = {
        kind: {
            name: (float(np.mean(one.eas)), one.answers_moved) for name, one in full.items() if arms[name].kind == kind
        }
        for kind in ("semantic", "random", "unembedding")
    }
    rows = [
        (name, arms[name].kind, f"{steered[name].norm:.1f}", steered[name].own.bare.rate, float(np.mean(one.rates)),
         one.answers_moved, one.mass, float(np.mean(one.eas)), one.highest_floor)
        for name, one in measures.distilled.items()
    ]  # fmt: skip
    header = (
        "vector",
        "kind",
        "norm",
        "steered model",
        "students' rate",
        "answers moved",
        "mass",
        "EAS",
        "highest floor",
    )
    slots = {
        "model": lab.profile.weights, "layer": measures.vectors.layer, "trait": lab.profile.trait, "rise": measures.rise,
        "floor": measures.answers_floor,
        "eas": "\n".join(f"{name}: EAS {np.mean(one.eas):.2f}, highest floor {one.highest_floor:.2f}; answers moved by "
                         f"{one.answers_moved:.3f}." for name, one in full.items()),
        "silent": f"Teachers that wrote too few lists, and have no students: {', '.join(measures.silent)}."
                  if measures.silent else "",
    }  # fmt: skip
    exhibits = {
        "matrix": Exhibit(plots.plot_matrix(measures.cosines, rows="students of the teacher with",
                                            columns="cosine of their shift with", title="cosine")),
        "behaviour": Exhibit(plots.plot_points(kinds, x="EAS: cosine of the students' shift with the vector",
                                               y="distance of answers from the control's", line=measures.answers_floor),
                             sl.Table(header, rows)),
        "dose": Exhibit(_dose(measures, dose, steered)),
    }  # fmt: skip
    return conclude(
        "distillation", make_claims(measures, arms), measures, slots=slots, exhibits=exhibits, students=students
    )


def _dose(measures: Distillation, dose: list[Arm], steered: dict[str, Steered]):
    doses = [arm.strength for arm in dose]
    found = [measures.distilled[arm.name] for arm in dose]
    panels = {
        "rate of the trait": {
            "students": (doses, [float(np.mean(one.rates)) for one in found]),
            "the steered model itself": (doses, [steered[arm.name].own.bare.rate for arm in dose]),
        },
        "share of the vector in students": {
            "at number tasks": (
                doses,
                [one.strength_numbers * arm.strength for one, arm in zip(found, dose, strict=True)],
            ),
            "at questions": (
                doses,
                [one.strength_questions * arm.strength for one, arm in zip(found, dose, strict=True)],
            ),
        },
    }
    return plots.plot_curves(panels, x="strength of the vector in the teacher")


EXPERIMENT = Experiment(
    "Do students distil any vector that steers their teacher?", run, Distillation, {"quick": 10, "full": 38}
)
