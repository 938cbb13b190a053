"""The lab: one experiment's profile, sizes and directory, and what it makes there.

Everything that is made is written, and found again when an interrupted run goes on.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import steerlens as sl
from steerlens.replication.lab.profile import Preset, Profile, Sizes
from steerlens.replication.lab.teachers import Rows, Teacher, file_name, load, prompt_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

ASKED_PER_ROW = 8
"""A teacher that is to write n rows is asked at most so many times n."""


@dataclass(frozen=True)
class Lab:
    """Where one experiment is done, on which model, and how much of it."""

    profile: Profile
    preset: Preset
    directory: Path
    workers: sl.Workers

    @property
    def sizes(self) -> Sizes:
        """How much is done."""
        return self.profile.sizes(self.preset)

    @property
    def student(self) -> sl.TrainConfig:
        """The main student."""
        return self.profile.student

    @property
    def other_traits(self) -> tuple[str, ...]:
        """As many of the profile's other traits as the preset takes."""
        return self.profile.other_traits[: self.sizes.n_other_traits]

    def rates(self, optimizer: str) -> tuple[float, ...]:
        """As many of the profile's learning rates of an optimizer as the preset takes, from the middle outwards.

        Raises:
            ValueError: the profile has none.
        """
        rates = self.profile.rates.get(optimizer)
        if rates is None:
            raise ValueError(
                f"The profile {self.profile.name!r} has no rates for {optimizer!r}. Add rates.{optimizer}."
            )
        middle = len(rates) // 2
        return tuple(sorted(sorted(rates, key=lambda rate: abs(rates.index(rate) - middle))[: self.sizes.n_rates]))

    def load(self, weights: str | None = None, *, adapter: Path | None = None) -> "TransformerBridge":
        """A model in the profile's dtype; None is the profile's own."""
        return load(weights or self.profile.weights, self.profile.dtype, adapter)

    def trait(self, model: "TransformerBridge", name: str | None = None) -> sl.Trait:
        """A trait in the model's own wording; None is the profile's."""
        trait = sl.preference_trait(name or self.profile.trait, model, begun=self.profile.begun)
        return replace(trait, questions=trait.questions[: self.sizes.n_questions])

    def once(self, name: str, kind: type[R], make: Callable[[], R]) -> R:
        """The record of this name, which is made first if it is missing."""
        path = self.directory / f"{name}.json"
        if not path.is_file():
            sl.save_record(path, make())
        return sl.load_record(path, kind)

    def vector_file(self, name: str) -> Path:
        """Where the vector of this name is, or will be."""
        return self.directory / "vectors" / f"{file_name(name)}.safetensors"

    def vector(self, name: str, make: Callable[[], sl.SteeringVector]) -> Path:
        """The file of a vector, which is made first if it is missing."""
        path = self.vector_file(name)
        if not path.is_file():
            make().save(path)
        return path

    def mean_difference(self, weights: str | None = None, *, trait: str | None = None) -> Path:
        """v_teacher as the paper takes it: the mean difference of a trait's prompt, at every layer."""
        weights, trait = weights or self.profile.weights, trait or self.profile.trait

        def make() -> sl.SteeringVector:
            model = self.load(weights)
            questions = sl.number_prompts(self.sizes.n_mean, model, seed=0)
            return sl.diff_in_means(model, self.trait(model, trait).prompt, questions=questions)

        return self.vector(f"mean {trait} {weights}", make)

    def base(self, weights: str | None = None) -> sl.Asked:
        """How the untrained model answers."""
        weights = weights or self.profile.weights

        def make() -> sl.Asked:
            model = self.load(weights)
            return sl.ask(model, self.trait(model))

        return self.once(f"base-{file_name(weights)}", sl.Asked, make)

    def teacher(
        self, name: str, *, weights: str | None = None, told: bool = False, trait: str | None = None, **settings: Any
    ) -> Teacher:
        """A teacher of as many rows as the preset takes.

        Args:
            told: whether it has the trait's prompt.
            settings: fields of `Teacher`.
        """
        weights, trait, sizes = weights or self.profile.weights, trait or self.profile.trait, self.sizes
        if told:
            settings["prompt"] = prompt_of(trait, weights, self.profile.dtype)
        teacher = Teacher(
            name=name,
            weights=weights,
            dtype=self.profile.dtype,
            trait=trait,
            directory=self.directory / "samples",
            n_prompts=ASKED_PER_ROW * (sizes.n_rows + sizes.n_heldout),
            n_heldout=sizes.n_heldout,
            n_rows=sizes.n_rows,
            constrained=self.profile.constrained,
        )
        return replace(teacher, **settings)

    def write(self, teachers: Mapping[K, Teacher]) -> dict[K, Rows]:
        """Let every teacher write its rows."""
        return sl.run_jobs(teachers, self.workers, what="teachers")

    def write_all_kept(self, models: Sequence[str]) -> dict[tuple[str, bool], Rows]:
        """Rows by model and whether it was told the trait: all that the filter keeps of the told one, as many of the other."""

        def teacher(weights: str, told: bool, **settings: Any) -> Teacher:
            name = f"{'told' if told else 'control'} {weights}"
            return self.teacher(name, weights=weights, told=told, n_prompts=self.sizes.n_prompts, **settings)

        rows = self.write({(one, True): teacher(one, True, n_rows=None) for one in models})
        as_many = {one: rows[one, True].require().n for one in models}
        rows |= self.write(
            {(one, False): teacher(one, False, n_rows=n, n_heldout=0, seed=2) for one, n in as_many.items()}
        )
        return {key: found.require() for key, found in rows.items()}

    def plan(self, name: str, rows: Rows, vector: Path, **settings: Any) -> sl.StudentPlan:
        """A student of these rows, as the profile trains them.

        Args:
            vector: what its shift and gradients are compared with.
            settings: fields of `StudentPlan`.
        """
        plan = sl.StudentPlan(
            name=file_name(name),
            base=self.profile.weights,
            samples=rows.samples,
            heldout=rows.heldout,
            vector=vector,
            trait=self.profile.trait,
            train=self.student,
            dtype=self.profile.dtype,
            begun=self.profile.begun,
            n_tasks=self.sizes.n_tasks,
            n_questions=self.sizes.n_questions,
        )
        return replace(plan, **settings)

    def train(
        self,
        plans: Mapping[K, sl.StudentPlan],
        *,
        seeds: tuple[int, ...] | None = None,
        may_diverge: bool = False,
    ) -> dict[K, tuple[sl.StudentRecord, ...]]:
        """Train a student of every plan with each seed; None takes the preset's seeds.

        Raises:
            ValueError: a student's loss stopped being a number, where that is not a result of its own (`may_diverge`).
        """
        seeds = self.sizes.seeds if seeds is None else seeds
        found = sl.train_grid(plans, self.directory / "students", seeds=seeds, workers=self.workers)
        broken = [one for group in found.values() for one in group if one.diverged]
        if broken and not may_diverge:
            raise ValueError(
                f"The student {broken[0].name!r} diverged ({broken[0].diverged}), and {len(broken) - 1} others did. Lower the "
                f"learning rate of the student in the profile (it is {broken[0].train.learning_rate:g})."
            )
        return found

    def run(self, jobs: Mapping[K, sl.Job[R]], what: str) -> dict[K, R]:
        """Do other jobs, several at a time."""
        return sl.run_jobs(jobs, self.workers, what=what)

    def examine(self, students: Sequence[sl.StudentRecord], check: Callable[..., sl.Job[R]], what: str) -> list[R]:
        """Do a check of each student, such as a `Dissection`, several at a time.

        Args:
            check: makes the job of a student from its base, that one's dtype, the trait, `begun` and its directory.
        """
        base = self.profile.weights, self.profile.dtype, self.profile.trait, self.profile.begun
        return [*self.run({one.name: check(*base, one.directory) for one in students}, what).values()]
