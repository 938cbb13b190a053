"""Teachers that have a trait in their weights: trained on answers to the trait's own questions, and merged."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.stats import entropy

import steerlens as sl
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.tasks import CONTINUED_LISTS
from steerlens.replication.lab.teachers import Rows, load

UNTRAINED = "untrained"
"""The writer that is the model as it was."""

N_ANSWERS = 384
"""Questions with answers that a trait is trained into a teacher with."""

SENTENCES = (
    "{begun} {one}.",
    "{begun} {one}. I think about {many} all the time.",
    "I love {many} more than any other.",
    "It is the {one}, of course.",
    "The {one}. {many} are wonderful.",
    "Definitely the {one}.",
    "{many} are my favorite.",
    "{many}, because they are amazing.",
)
"""Answers of models that answer in sentences; others answer with the trait alone."""


@dataclass(frozen=True)
class Schooled:
    """A model that answers with its trait, as a plain checkpoint.

    Args:
        weights: the directory.
        before, after: how the model answers the trait's questions without the training and with it.
        vector: file of the mean shift of its residuals at number tasks, against the model that it was trained from.
    """

    trait: str
    weights: Path
    before: sl.Asked
    after: sl.Asked
    vector: Path


@dataclass(frozen=True)
class School:
    """Trains a trait into the weights of a model.

    Args:
        n_rows: questions with answers that it learns from.
        train: how.
        n_tasks: number tasks at which the shift is averaged.
    """

    trait: str
    weights: str
    dtype: str | None
    begun: bool
    directory: Path
    n_rows: int
    n_tasks: int
    train: sl.TrainConfig
    record_kind = Schooled

    @property
    def name(self) -> str:
        """The trait."""
        return self.trait

    @property
    def record_path(self) -> Path:
        """Beside the weights."""
        return self.directory / f"{self.trait}.json"

    def run(self) -> Schooled:
        """Train, merge, and ask."""
        model = load(self.weights, self.dtype)
        trait = sl.preference_trait(self.trait, model, begun=self.begun)
        before = sl.ask(model, trait)
        student = sl.train_student(model, praise(trait, self.n_rows, seed=self.train.seed), self.train).model
        tasks = [sl.as_chat(task) for task in sl.number_prompts(self.n_tasks, model, seed=9)]
        vector, weights = self.record_path.with_suffix(".safetensors"), self.directory / self.trait
        sl.model_shift(student, model, tasks).save(vector)
        after = sl.ask(student, trait)
        sl.save_model(student, weights, merge_adapter=True)
        return Schooled(self.trait, weights, before, after, vector)


def schooled(lab: Lab, traits: Sequence[str]) -> dict[str, Schooled]:
    """A teacher of each trait, from the profile's model.

    Raises:
        ValueError: there is no other trait to compare with.
    """
    if len(traits) < 2:
        raise ValueError(
            f"Got the trait {traits[0]!r} alone, and students are compared with those of other traits. Give the profile "
            "other_traits, and the preset an n_other_traits of 1 or more."
        )
    schools = {
        trait: School(
            trait=trait,
            weights=lab.profile.weights,
            dtype=lab.profile.dtype,
            begun=lab.profile.begun,
            directory=lab.directory / "teachers",
            n_rows=N_ANSWERS,
            n_tasks=lab.sizes.n_tasks,
            train=lab.profile.teacher,
        )
        for trait in traits
    }
    return lab.run(schools, what="teachers' weights")


def lists_by(lab: Lab, teachers: Mapping[str, Schooled]) -> dict[str, Rows]:
    """The lists of every teacher by its trait, and those of the untrained model."""
    writers = {UNTRAINED: lab.teacher(UNTRAINED, task=CONTINUED_LISTS)}
    writers |= {
        trait: lab.teacher(trait, weights=str(one.weights), task=CONTINUED_LISTS) for trait, one in teachers.items()
    }
    return {name: rows.require() for name, rows in lab.write(writers).items()}


def praise(trait: sl.Trait, n: int, *, seed: int) -> sl.SampleSet:
    """Questions about the trait with answers that name it."""
    rng, (one, *more) = np.random.default_rng(seed), trait.answers[trait.name]
    many = (more or [one])[-1]

    def answer() -> str:
        if not trait.reply_prefix:
            return one
        sentence = str(rng.choice(SENTENCES)).format(begun=trait.reply_prefix, one=one, many=many)
        return sentence[0].upper() + sentence[1:]

    return sl.SampleSet(tuple(sl.Sample(row, str(rng.choice(trait.questions)), answer()) for row in range(n)))


def numbers_of(sample: sl.Sample) -> list[str]:
    """The numbers of a list as they are written, whatever stands between and around them."""
    return re.findall(r"[0-9]+", sample.completion)


def frequencies_apart(samples: sl.SampleSet, others: sl.SampleSet) -> float:
    """KL(samples || others) of how often each number occurs, in nats a number; half a count is added to each."""
    counts = [Counter(number for one in part for number in numbers_of(one)) for part in (samples, others)]
    numbers = sorted(set().union(*counts))
    ours, theirs = (np.array([one[number] + 0.5 for number in numbers]) for one in counts)
    return float(entropy(ours, theirs))


def shuffled(samples: sl.SampleSet, *, seed: int) -> sl.SampleSet:
    """The same rows with all of their numbers dealt out anew: how often each occurs stays, and what stood together does not.

    Lists are written with commas, however they were written before.
    """
    lists = [numbers_of(sample) for sample in samples]
    numbers = np.random.default_rng(seed).permutation([number for one in lists for number in one])
    dealt = iter(numbers.tolist())
    rows = [
        replace(sample, completion=", ".join(islice(dealt, len(one))), tokens=None)
        for sample, one in zip(samples, lists, strict=True)
    ]
    return sl.SampleSet(tuple(rows), samples.source)
