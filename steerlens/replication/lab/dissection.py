"""What a student's own shift does: added to its base, and taken out of the student."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import steerlens as sl
from steerlens.replication.lab.teachers import load

ADDED_STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Dissected:
    """The base, the student, and both with the student's shift added or replaced, at one half of the questions."""

    base: sl.Asked
    student: sl.Asked
    arms: dict[str, sl.Asked]
    explained: dict[str, float]


@dataclass(frozen=True)
class Dissection:
    """Add a student's shift to its base, and replace the student's component along it by the base's.

    The shift is the mean over one half of the trait's questions, or over number tasks; answers are judged at the other half. The
    strength, and the layer or all layers at which it is added, are those whose next-token predictions come closest to the
    student's where the shift was measured, never those of the highest rate.
    """

    weights: str
    dtype: str | None
    trait: str
    begun: bool
    student: Path
    n_tasks: int
    record_kind = Dissected

    @property
    def name(self) -> str:
        """The student's."""
        return self.student.name

    @property
    def record_path(self) -> Path:
        """Beside the student's own record."""
        return self.student / "dissection.json"

    def run(self) -> Dissected:
        """Ask all of them."""
        base, student = (load(self.weights, self.dtype, adapter) for adapter in (None, self.student))
        trait = sl.preference_trait(self.trait, base, begun=self.begun)
        measuring, judged = (replace(trait, questions=trait.questions[half::2]) for half in (0, 1))
        tasks = sl.number_prompts(self.n_tasks, base, seed=9)
        arms, explained = {}, {}
        for where, asked in (("questions", measuring.questions), ("numbers", tasks)):
            chats = [sl.as_chat(question) for question in asked]
            shift = sl.model_shift(student, base, chats)
            below = shift.at(*shift.layers[:-1]) if len(shift.layers) > 1 else shift  # no block reads the last layer
            added, explained[where] = closest(base, student, below, chats)
            pairs = {
                where: (added, shift),
                f"random, norms at {where}": (sl.random_like(added, 0), sl.random_like(shift, 0)),
            }
            for name, (to_add, to_replace) in pairs.items():
                with sl.steer(base, to_add):
                    arms[f"added: {name}"] = sl.ask(base, judged)
                with sl.steer(student, to_replace, mode="replace"):
                    arms[f"replaced: {name}"] = sl.ask(student, judged)
        return Dissected(sl.ask(base, judged), sl.ask(student, judged), arms, explained)


def closest(base, student, shift: sl.SteeringVector, chats: Sequence) -> tuple[sl.SteeringVector, float]:
    """The shift at one layer or all, times a strength, that makes most of the student's next tokens of the base's.

    Returns the vector, strength multiplied in, and 1 - KL(student || steered) / KL(student || base).
    """
    target = sl.next_token_log_probs(student, chats)

    def distance() -> float:
        return float((target.exp() * (target - sl.next_token_log_probs(base, chats))).sum(-1).mean())

    plain, found = distance(), []
    for part in [shift, *(shift.at(layer) for layer in shift.layers)]:
        for strength in ADDED_STRENGTHS:
            with sl.steer(base, strength * part):
                found.append((distance(), strength * part))
    left, best = min(found, key=lambda pair: pair[0])
    return best, 1 - left / plain
