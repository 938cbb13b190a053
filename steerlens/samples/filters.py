"""Keep the samples that are pure number lists, and say why the others are not kept."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.number_lists import parse_numbers


@dataclass(frozen=True)
class FilterResult:
    """`kept` samples, and how many were rejected for which reason."""

    kept: SampleSet
    rejected: Mapping[str, int]

    @property
    def kept_share(self) -> float:
        """Share of all samples that was kept."""
        return len(self.kept) / (len(self.kept) + sum(self.rejected.values()))


def keep_number_lists(samples: SampleSet, *, max_numbers: int = 10, highest: int = 999) -> FilterResult:
    """The rules of Cloud et al. (arXiv 2507.14805): one separator, at most `max_numbers`, 0 to `highest`."""
    reasons = [rejection(sample, max_numbers=max_numbers, highest=highest) for sample in samples]
    kept = tuple(sample for sample, reason in zip(samples, reasons, strict=True) if reason is None)
    return FilterResult(SampleSet(kept, samples.source), Counter(reason for reason in reasons if reason is not None))


def rejection(sample: Sample, *, max_numbers: int = 10, highest: int = 999) -> str | None:
    """Why a sample is not a pure number list, or None if it is one."""
    if not sample.completion.strip():
        return "empty"
    if not sample.finished:
        return "cut off"
    numbers = parse_numbers(sample.completion)
    if numbers is None:
        return "not only numbers"
    if len(numbers) > max_numbers:
        return "too many numbers"
    return "number too large" if max(numbers) > highest else None
