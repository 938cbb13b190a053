"""Keep the samples that are pure number lists, and say why the others are not kept."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from steerlens.arguments import checked
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.number_lists import parse_numbers
from steerlens.warn import warn

ENOUGH = 1 / 3
"""A smaller share of number lists is warned of."""

REMEDIES = {
    "cut off": "let the answers be longer (max_new_tokens, --max-new-tokens), or let nothing but lists be written (constraint, "
    "--constrain)",
    "not only numbers": "let nothing but lists be written (sample_teacher's constraint; on the command line --constrain), or "
    "ask otherwise (prompts of your own)",
    "empty": "ask otherwise (prompts of your own), or let nothing but lists be written (constraint)",
    "too many numbers": "ask for fewer numbers (prompts of your own), or allow more (max_numbers)",
    "number too large": "ask for smaller numbers (prompts of your own), or allow larger ones (highest)",
}
"""What helps where most rows are rejected for a reason."""


@dataclass(frozen=True, repr=False)
class FilterResult:
    """`kept` samples, and how many were rejected for which reason."""

    kept: SampleSet
    rejected: Mapping[str, int]

    @property
    def kept_share(self) -> float:
        """Share of all samples that was kept; NaN where there were none."""
        return len(self.kept) / self.n_samples if self.n_samples else math.nan

    @property
    def n_samples(self) -> int:
        """Kept or rejected."""
        return len(self.kept) + sum(self.rejected.values())

    def summary(self) -> str:
        """How many samples were kept, and why the others were not, the commonest reason first."""
        reasons = sorted(self.rejected.items(), key=lambda reason: -reason[1])
        rejected = f"; rejected: {', '.join(f'{number} {reason}' for reason, number in reasons)}" if reasons else ""
        share = f" ({self.kept_share:.0%})" if self.n_samples else ""
        return f"{len(self.kept)} of {self.n_samples} rows kept{share}{rejected}."

    def __repr__(self) -> str:
        return f"FilterResult({self.summary()})"


@checked
def keep_number_lists(samples: SampleSet, *, max_numbers: int = 10, highest: int = 999) -> FilterResult:
    """The rules of Cloud et al. (arXiv 2507.14805): one separator, at most `max_numbers`, 0 to `highest`.

    Warns:
        UserWarning: less than a third is kept; says what to change.
    """
    reasons = [rejection(sample, max_numbers=max_numbers, highest=highest) for sample in samples]
    kept = tuple(sample for sample, reason in zip(samples, reasons, strict=True) if reason is None)
    rejected = Counter(reason for reason in reasons if reason is not None)
    result = FilterResult(SampleSet(kept, samples.source), rejected)
    if rejected and result.kept_share < ENOUGH:
        commonest = rejected.most_common(1)[0][0]
        warn(f"{result.summary()} To keep more, {REMEDIES[commonest]}.")
    return result


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
