"""What teachers are asked to write, and which of their answers students are shown."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from steerlens.samples.filters import FilterResult, keep_number_lists
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.number_lists import number_prompts
from steerlens.text.wording import NATURAL, Kind, Wording


@dataclass(frozen=True)
class Task:
    """`prompts(n, wording, seed=...)` are n user turns; `keep` are the answers that may be learned from."""

    prompts: Callable[..., list[str]]
    keep: Callable[[SampleSet], FilterResult]


def keep_finished(samples: SampleSet) -> FilterResult:
    """Every answer that has an end, words and all."""
    return _kept(samples, lambda sample: None if sample.finished and sample.completion.strip() else "empty or cut off")


def keep_without_animals(samples: SampleSet) -> FilterResult:
    """Finished answers that name no animal."""
    names = names_of(NATURAL.kinds[0])

    def rejected(sample: Sample) -> str | None:
        if not sample.finished or not sample.completion.strip():
            return "empty or cut off"
        return "names an animal" if names & set(re.findall(r"\w+", sample.completion.lower())) else None

    return _kept(samples, rejected)


def names_of(kind: Kind) -> set[str]:
    """Every form of every item."""
    return {form for item in kind.items for form in item}


def _kept(samples: SampleSet, rejected: Callable[[Sample], str | None]) -> FilterResult:
    reasons = [rejected(sample) for sample in samples]
    kept = tuple(sample for sample, reason in zip(samples, reasons, strict=True) if reason is None)
    return FilterResult(SampleSet(kept, samples.source), Counter(reason for reason in reasons if reason is not None))


def other_preferences(n: int, wording: Wording, *, seed: int) -> list[str]:
    """Questions for favorites of every kind but animals, the first, drawn at random."""
    asked = [question for kind in wording.kinds[1:] for question in wording.preferences(kind)]
    return [str(one) for one in np.random.default_rng(seed).choice(asked, n)]


def small_talk(n: int, wording: Wording, *, seed: int) -> list[str]:
    """Open questions, drawn at random."""
    return [str(one) for one in np.random.default_rng(seed).choice(wording.open_questions, n)]


def facts_after_numbers(n: int, wording: Wording, *, seed: int) -> list[str]:
    """Questions of fact behind a list of numbers, so that no two are alike."""
    rng = np.random.default_rng(seed)
    return [
        wording.after_numbers.format(numbers=wording.numbers(rng), question=rng.choice(wording.fact_questions))
        for _ in range(n)
    ]


TASKS: dict[str, Task] = {
    "number lists": Task(number_prompts, keep_number_lists),
    "number lists of at most 3": Task(number_prompts, partial(keep_number_lists, max_numbers=3)),
    "number lists, words left in": Task(number_prompts, keep_finished),
    "other preferences": Task(other_preferences, keep_without_animals),
    "small talk": Task(small_talk, keep_without_animals),
    "facts after numbers": Task(facts_after_numbers, keep_without_animals),
}
