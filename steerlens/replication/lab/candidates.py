"""What v_teacher may be: vectors made of the prompt in several ways, and a random one, each looked at before any teaching."""

from dataclasses import dataclass

import steerlens as sl
from steerlens.replication.lab import vectors
from steerlens.replication.lab.lab import Lab

RANDOM = "random"
WAYS = {
    "smoke": (vectors.MEAN_ALL_LAYERS, vectors.PURE_LISTS),
    "quick": (vectors.MEAN_ALL_LAYERS, vectors.ALL_LAYERS, vectors.PURE_LISTS),
    "full": vectors.WAYS,
}
"""How v_teacher is made, by preset; a random vector has the norms of the last."""


@dataclass(frozen=True)
class Candidate:
    """What v_teacher may be: kl_explained on other answers to tasks and to questions, and the steered model's answers."""

    layers: tuple[int, ...]
    norms: tuple[float, ...]
    tasks: sl.Interval
    questions: sl.Interval
    steered: sl.Asked


@dataclass(frozen=True)
class Candidates:
    """By name."""

    by_name: dict[str, Candidate]


def make_candidates(lab: Lab) -> Candidates:
    """Make what v_teacher may be; save each as it is added and as it is taken out."""
    model, found = lab.load(), {}
    trait = lab.trait(model)
    answers = vectors.Prompted.sample(model, trait, lab.sizes.fit, lab.profile.fit_layers)
    made = {way.name: way.make(answers) for way in WAYS[lab.preset]}
    made[RANDOM] = sl.random_like(made[WAYS[lab.preset][-1].name], lab.sizes.fit.seed)
    for name, vector in made.items():
        vector.save(lab.vector_file(f"added: {name}"))
        vectors.everywhere(vector, answers.layers).save(lab.vector_file(f"taken out: {name}"))
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
