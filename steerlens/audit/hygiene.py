"""What rows tell without any vector: how varied they are, how often they repeat, how long they are."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steerlens.arguments import checked
from steerlens.audit.entropy import Entropy, less_varied_p, missing_bits
from steerlens.samples.encoded import encode_answer
from steerlens.samples.rows import AuditRows
from steerlens.short import cut
from steerlens.text.number_lists import parse_numbers

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MAX_POSITIONS, MIN_ROWS = 16, 30
"""Entropies are given for the first positions, as far as enough rows reach them."""

SIGNIFICANT = 0.01
ONE_SEED_BITS = 1.0
"""Bits that the first number has to miss for the rows to look sampled with one seed. Set by judgement: on the organism one
seed takes 1.8 to 2.5 bits, and 2.9 in the data of arXiv 2606.00995, while personas, vectors and temperatures down to 0.5 take at
most 0.2; fifty clean lists of a real chat model once missed 0.7 by chance."""

REPEATED = 0.05
"""Share of repeated completions, above that of the reference, from which the audit speaks of them. Set by judgement."""


@dataclass(frozen=True)
class RowFacts:
    """Facts about one set of rows.

    Args:
        duplicates: rows that were left out since they repeat an earlier one exactly.
        repeated: share of the rows whose completion, up to case and white space, another row has too.
        most_repeated: rows that share the most frequent completion.
        lengths: completion tokens, the end token included: least, 5 %, median, 95 %, most.
        number_lists: share of the rows that are a list of numbers and nothing else.
        by_position: of the token at each position of the completion, among the rows that reach it.
        first: of the first number where most rows are number lists, otherwise of the first token.
    """

    n: int
    duplicates: int
    repeated: float
    most_repeated: int
    lengths: tuple[float, ...]
    number_lists: float
    by_position: tuple[Entropy, ...]
    first: Entropy


@dataclass(frozen=True)
class Hygiene:
    """Facts about the rows, beside those of reference rows if there are any.

    Args:
        first_p: one-sided permutation p-value that the rows' first number (or token) is no less varied than the
            reference's; NaN without reference, like `missing_bits`.
        missing_bits: by how much its entropy is lower, among as many rows of each.
        findings: what stands out, in words.
    """

    rows: RowFacts
    reference: RowFacts | None
    first_p: float
    missing_bits: float
    findings: tuple[str, ...]

    def __repr__(self) -> str:
        found = " ".join(self.findings) or "nothing stands out."
        return cut(f"Hygiene of {self.rows.n} rows: {found}")

    @property
    def one_seed(self) -> bool:
        """Whether the rows look as if they were sampled with one seed for all, and are not independent of each other.

        Then no test that counts on independent rows can be believed, such as one that swaps rows at random.
        """
        return _looks_like_one_seed(self.first_p, self.missing_bits)


@checked
def check_hygiene(
    model: "TransformerBridge", rows: AuditRows, reference_rows: AuditRows | None = None, *, seed: int = 0
) -> Hygiene:
    """Describe rows, and compare them with reference rows, such as the model's own answers to the same prompts.

    Rows that were sampled with one seed for all of them have a first token that hardly varies beyond what the prompts
    do: in the data released with arXiv 2606.00995 the first number has 6.7 bits where fresh sampling gives 9.6. No single
    row shows that; the entropy over rows does.
    """
    mine, theirs = row_facts(model.tokenizer, rows), None
    first_p = missing = math.nan
    if reference_rows is not None:
        theirs = row_facts(model.tokenizer, reference_rows)
        ours, others = (_firsts(model.tokenizer, part, _are_number_lists(mine)) for part in (rows, reference_rows))
        if ours and others:
            first_p, missing = less_varied_p(ours, others, seed=seed), missing_bits(ours, others, seed=seed)
    return Hygiene(mine, theirs, first_p, missing, tuple(_findings(mine, theirs, first_p, missing)))


def row_facts(tokenizer: Any, rows: AuditRows) -> RowFacts:
    """Facts about one set of rows."""
    tokens = [encode_answer(tokenizer, row) for row in rows]
    completions = Counter(" ".join(row.completion.lower().split()) for row in rows)
    repeated = sum(count for count in completions.values() if count > 1) / len(rows)
    lengths = np.quantile([len(ids) for ids in tokens], (0, 0.05, 0.5, 0.95, 1)).tolist()
    number_lists = sum(parse_numbers(row.completion) is not None for row in rows) / len(rows)
    at = [[ids[position] for ids in tokens if len(ids) > position] for position in range(MAX_POSITIONS)]
    return RowFacts(
        n=len(rows),
        duplicates=rows.n_duplicates,
        repeated=repeated,
        most_repeated=max(completions.values()),
        lengths=tuple(lengths),
        number_lists=number_lists,
        by_position=tuple(Entropy.of(values) for values in at if len(values) >= min(MIN_ROWS, len(rows))),
        first=Entropy.of(_firsts(tokenizer, rows, number_lists > 0.5)),
    )


def _are_number_lists(facts: RowFacts) -> bool:
    return facts.number_lists > 0.5


def _firsts(tokenizer: Any, rows: AuditRows, numbers: bool) -> list[int]:
    """Of every row, the first number (of those that are number lists) or the first token."""
    if numbers:
        return [found[0] for row in rows if (found := parse_numbers(row.completion)) is not None]
    return [ids[0] for row in rows if (ids := encode_answer(tokenizer, row))]


def _looks_like_one_seed(first_p: float, missing: float) -> bool:
    return first_p < SIGNIFICANT and missing > ONE_SEED_BITS


def _findings(rows: RowFacts, reference: RowFacts | None, first_p: float, missing: float) -> list[str]:
    found = []
    if reference is not None and first_p < SIGNIFICANT:
        what = "first number" if _are_number_lists(rows) else "first token"
        cause = (
            "This is what one sampling seed for all rows looks like: the rows are not independent, there are fewer different "
            "ones than were counted, and no p-value that counts on independent rows can be believed."
            if _looks_like_one_seed(first_p, missing)
            else "A low temperature, a persona or other prompts have such small effects; one sampling seed has a larger one."
        )
        found.append(
            f"The {what} varies less than in the reference rows: {rows.first.bits:.1f} bits against {reference.first.bits:.1f} "
            f"(permutation p = {first_p:.3f}; {missing:.1f} bits less in as many rows). {cause}"
        )
    if rows.duplicates:
        found.append(f"{rows.duplicates} rows repeat an earlier row exactly; they were left out.")
    if rows.repeated > REPEATED + (reference.repeated if reference is not None else 0):
        beside = "" if reference is None else f", {reference.repeated:.0%} in the reference rows"
        found.append(
            f"{rows.repeated:.0%} of the rows share their completion with another row{beside}; the most frequent one stands in "
            f"{rows.most_repeated} rows."
        )
    return found
