"""What teachers are like before anyone learns from them: their effect on lists, and their own answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import steerlens as sl
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.teachers import Rows, Teacher


@dataclass(frozen=True)
class Effect:
    """A teacher's share of the prompt's effect on pure lists, and its own answers."""

    on_lists: float
    own: sl.Asked


@dataclass(frozen=True)
class Effects:
    """By the name of the teacher."""

    by_name: dict[str, Effect]


def measure_effects(lab: Lab, teachers: Mapping[str, Teacher], told: Rows) -> Effects:
    """Each teacher's effect on the told one's held-out lists, and what it answers itself."""
    model, found = lab.load(), {}
    trait = lab.trait(model)
    shares = effects_on_lists(model, teachers, sl.SampleSet.load(told.heldout), trait.prompt)
    for name, teacher in teachers.items():
        with teacher.condition.steering(model):
            found[name] = Effect(shares[name], sl.ask(model, trait, system_prompt=teacher.prompt))
    return Effects(found)


def effects_on_lists(model, teachers: Mapping[str, Teacher], lists: sl.SampleSet, prompt: str) -> dict[str, float]:
    """How much of the prompt's effect on pure lists each teacher has: 1 is all of it, 0 none.

    1 - KL(prompted || teacher) / KL(prompted || plain), over the tokens that lists are written with. That is what a student
    can see of the prompt, since words are filtered out.
    """
    among, told = sl.list_tokens(model), sl.Condition(prompt)
    plain = float(sl.row_kl(model, lists, told, among=among).sum())
    return {
        name: 1 - float(sl.row_kl(model, lists, told, teacher.condition, among=among).sum()) / plain
        for name, teacher in teachers.items()
    }
