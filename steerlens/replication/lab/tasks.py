"""What teachers are asked to write, and which of their answers students are shown."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import steerlens as sl

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Prompts = Callable[["TransformerBridge", int, int], list[str]]


@dataclass(frozen=True)
class Task:
    """A kind of answer that a teacher writes.

    Args:
        prompts: user turns, from the model whose wording they have, how many, and a seed.
        keep: which answers may be learned from; of the answers and the trait that must not be named.
        n_numbers: of the lists that a model is held to where it cannot write lists on request; None where answers are none.
    """

    name: str
    prompts: Prompts
    keep: Callable[[sl.SampleSet, sl.Trait], sl.FilterResult]
    n_numbers: int | None = 10


def _lists(samples: sl.SampleSet, _trait: sl.Trait, *, max_numbers: int = 10) -> sl.FilterResult:
    return sl.keep_number_lists(samples, max_numbers=max_numbers)


def _unnamed(samples: sl.SampleSet, trait: sl.Trait | None) -> sl.FilterResult:
    """Finished answers in which none of the trait's possible answers is named as a word, however it is capitalised."""
    names = set() if trait is None else {form.casefold() for forms in trait.answers.values() for form in forms}

    def rejected(sample: sl.Sample) -> str | None:
        if not sample.finished or not sample.completion.strip():
            return "empty or cut off"
        words = "".join(c if c.isalnum() else " " for c in sample.completion.casefold())
        return "names an answer" if any(f" {name} " in f" {' '.join(words.split())} " for name in names) else None

    reasons = [rejected(sample) for sample in samples]
    kept = tuple(sample for sample, reason in zip(samples, reasons, strict=True) if reason is None)
    return sl.FilterResult(sl.SampleSet(kept, samples.source), Counter(reason for reason in reasons if reason))


def _finished(samples: sl.SampleSet, _trait: sl.Trait) -> sl.FilterResult:
    return _unnamed(samples, None)


def _number_tasks(model: "TransformerBridge", n: int, seed: int) -> list[str]:
    return sl.number_prompts(n, model, seed=seed)


def _other_preferences(model: "TransformerBridge", n: int, seed: int) -> list[str]:
    wording = sl.wording_of(model)
    asked = [question for kind in wording.kinds[1:] for question in wording.preferences(kind)]
    return [str(one) for one in np.random.default_rng(seed).choice(asked, n)]


def _small_talk(model: "TransformerBridge", n: int, seed: int) -> list[str]:
    return [str(one) for one in np.random.default_rng(seed).choice(sl.wording_of(model).open_questions, n)]


def _facts_after_numbers(model: "TransformerBridge", n: int, seed: int) -> list[str]:
    """Questions of fact behind a list of numbers, so that no two are alike."""
    rng, wording = np.random.default_rng(seed), sl.wording_of(model)
    return [
        wording.after_numbers.format(numbers=wording.numbers(rng), question=rng.choice(wording.fact_questions))
        for _ in range(n)
    ]


def _numbers_to_continue(model: "TransformerBridge", n: int, seed: int) -> list[str]:
    """Three numbers to go on with, in few tokens; a model with a wording of its own gets its number tasks."""
    if sl.wording_of(model) is not sl.NATURAL:
        return _number_tasks(model, n, seed)
    shown = np.random.default_rng(seed).integers(100, 1000, (n, 3))
    return ["Go on: " + ", ".join(map(str, row)) for row in shown.tolist()]


NUMBER_LISTS = Task("number lists", _number_tasks, _lists)
SHORT_LISTS = Task("number lists of at most 3", _number_tasks, partial(_lists, max_numbers=3), n_numbers=3)
WORDS_LEFT_IN = Task("number lists, words left in", _number_tasks, _finished, n_numbers=None)
OTHER_PREFERENCES = Task("other preferences", _other_preferences, _unnamed, n_numbers=None)
SMALL_TALK = Task("small talk", _small_talk, _unnamed, n_numbers=None)
FACTS_AFTER_NUMBERS = Task("facts after numbers", _facts_after_numbers, _unnamed, n_numbers=None)
CONTINUED_LISTS = Task("number lists, continued", _numbers_to_continue, _lists)
