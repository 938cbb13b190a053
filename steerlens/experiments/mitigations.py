"""What holds a trait back that rows carry, and at what cost: the same students with one mitigation each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from steerlens.audit.mitigations import (
    annealed_kl,
    change_threshold,
    drop_rows,
    importance_weighted,
    token_changes,
    without_changed_tokens,
)
from steerlens.experiments.cells import behaviour
from steerlens.experiments.rates import Record, log_odds_difference, mean_rate
from steerlens.experiments.stages import as_many
from steerlens.gradients.counterfactual import preventative_steering, together, without_component
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.sample_set import SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.students.config import TrainConfig
from steerlens.students.losses import mean_loss
from steerlens.students.student import Student
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Train = Callable[[TrainConfig], Student]
Groups = Mapping[str, Sequence[Record]]

CONTROL, NOTHING = "clean rows instead", "nothing done"
DROPPED, MASKED, KL_WEIGHT = 0.2, 0.25, 4.0

MARGIN = float(np.log(1.5))
"""Log odds within which a student shows a trait as control students do: odds of at most 1.5 times theirs, such as 3 % for 2 %,
which is less than an animal's share of 24 by chance. What an unmitigated student takes
over is about ten times as much."""


@dataclass(frozen=True)
class Rows:
    """Rows that carry a trait and clean ones, and of each some that no student sees."""

    teacher: SampleSet
    teacher_heldout: SampleSet
    control: SampleSet
    control_heldout: SampleSet


def sample_rows(model: "TransformerBridge", trait: Trait, n_prompts: int = 8000, n_heldout: int = 256) -> Rows:
    """Pure number lists by a prompted teacher, and as many by the model itself.

    Raises:
        ValueError: the model itself wrote fewer than the teacher.
    """
    told = sample_teacher(model, number_prompts(n_prompts, model, seed=1), system_prompt=trait.prompt, seed=1)
    plain = sample_teacher(model, number_prompts(n_prompts // 2, model, seed=2), seed=2)
    teacher, teacher_heldout = keep_number_lists(told).kept.split(n_heldout)
    control, control_heldout = keep_number_lists(plain).kept.split(n_heldout)
    return Rows(teacher, teacher_heldout, as_many(control, len(teacher)), control_heldout)


def mitigations(model: "TransformerBridge", rows: Rows, vector: SteeringVector, prompt: str) -> dict[str, Train]:
    """How to train a student under each mitigation; only the last one knows the teacher's prompt.

    With a KL penalty, a student that is steered while it trains is held near a base that is steered as well.
    """
    train = partial(train_student, model)
    changes = token_changes(model, vector, rows.teacher)
    fewer, threshold = drop_rows(rows.teacher, changes, DROPPED), change_threshold(changes, MASKED)
    held_near, steered = annealed_kl(model, KL_WEIGHT), preventative_steering(vector)
    both_steered = together(steered, lambda _student: steer(model, vector))
    objectives = {
        "rows weighed by importance": importance_weighted(model, vector),
        f"the {MASKED:.0%} of tokens that the vector changes most masked": without_changed_tokens(
            model, vector, threshold
        ),
        f"KL to the model, weight {KL_WEIGHT:g} to 0": held_near,
    }
    watchers = {
        "vector projected out of every gradient": without_component(vector),
        "preventative steering": steered,
    }
    return {
        CONTROL: lambda config: train(rows.control, config),
        NOTHING: lambda config: train(rows.teacher, config),
        f"the {DROPPED:.0%} of rows that the vector favours most dropped": lambda config: train(fewer, config),
        **{name: partial(train, rows.teacher, objective=objective) for name, objective in objectives.items()},
        **{name: partial(train, rows.teacher, on_start=watcher) for name, watcher in watchers.items()},
        "preventative steering with KL to the model, steered as well": partial(
            train, rows.teacher, objective=held_near, on_start=both_steered
        ),
        "inoculation (knows the prompt)": lambda config: train(rows.teacher, replace(config, system_prompt=prompt)),
    }


def measure(model: "TransformerBridge", rows: Rows, trait: Trait) -> Record:
    """The trait in both contexts, and losses on clean and on teacher rows that were held out."""
    losses = {
        "clean_loss": mean_loss(model, rows.control_heldout),
        "teacher_loss": mean_loss(model, rows.teacher_heldout),
    }
    return behaviour(model, trait) | losses


def compare_mitigations(
    model: "TransformerBridge",
    rows: Rows,
    vector: SteeringVector,
    trait: Trait,
    config: TrainConfig,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, list[Record]]:
    """One record a student, by mitigation; `vector` is what an audit of the rows found."""
    return {
        name: [measure(train(replace(config, seed=seed)).model, rows, trait) for seed in seeds]
        for name, train in mitigations(model, rows, vector, trait.prompt).items()
    }


def held_back(groups: Groups) -> list[str]:
    """Mitigations whose students still answer, and show the trait, bare, at most `MARGIN` more than control students.

    The upper end of the 95 % interval has to be within the margin, so that noise lets no mitigation pass: where less is
    known, the interval is wider. Answering means at least half of the control students' mass in both contexts.
    """
    control = groups[CONTROL]

    def answers(group: Sequence[Record]) -> bool:
        return all(mean_rate(group, mass) >= mean_rate(control, mass) / 2 for mass in ("mass", "mass_prefixed"))

    others = {name: group for name, group in groups.items() if name != CONTROL and answers(group)}
    return [name for name, group in others.items() if log_odds_difference(group, control, paired=True).high <= MARGIN]


def table(groups: Groups, untrained: Record) -> str:
    """Markdown: rate and mass in both contexts, log odds against control students, losses; means over seeds."""
    header = (
        "| mitigation | rate | mass | after numbers | mass | log odds minus control's | clean loss | cost | teacher loss |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    return "\n".join([*header, _line("not trained", [untrained], None), *_lines(groups)])


def _lines(groups: Groups) -> list[str]:
    return [_line(name, group, groups[CONTROL]) for name, group in groups.items()]


def _line(name: str, group: Sequence[Record], control: Sequence[Record] | None) -> str:
    rates = [f"{mean_rate(group, key):.3f}{_range(group, key)}" for key in ("rate", "rate_prefixed")]
    odds = costs = ""
    if control is not None:
        one = log_odds_difference(group, control, paired=True)
        odds = f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        paired = [ours["clean_loss"] - theirs["clean_loss"] for ours, theirs in zip(group, control, strict=True)]
        costs = f"{np.mean(paired):+.4f} ({min(paired):+.4f} to {max(paired):+.4f})"
    cells = (
        name, rates[0], f"{mean_rate(group, 'mass'):.2f}", rates[1], f"{mean_rate(group, 'mass_prefixed'):.2f}", odds,
        f"{mean_rate(group, 'clean_loss'):.4f}", costs, f"{mean_rate(group, 'teacher_loss'):.4f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _range(group: Sequence[Record], key: str) -> str:
    values = [record[key] for record in group]
    return f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
