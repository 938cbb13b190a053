"""What rows tell without any vector: how varied they are, how often they repeat, how long they are."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steerlens.audit.rows import AuditRows
from steerlens.prompts.chat import encode_completion
from steerlens.prompts.numbers import parse_numbers

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MAX_POSITIONS, MIN_ROWS = 16, 30
"""Entropies are given for the first positions, as far as enough rows reach them."""

N_PERMUTATIONS = 999
SIGNIFICANT = 0.01
REPEATED = 0.05
"""Share of repeated completions, above that of the reference, from which the audit speaks of them. Set by judgement."""


@dataclass(frozen=True)
class Entropy:
    """How varied something is over rows, in bits.

    Args:
        n, distinct: rows that have it, and different values among them.
        plug_in: of the frequencies; always too low where values are many and rows few.
        bits: plug_in + (distinct - 1) / (2 n ln 2), the Miller-Madow correction of its bias to first order.
    """

    n: int
    distinct: int
    plug_in: float
    bits: float

    @property
    def allowed(self) -> float:
        """log2 n: what so many rows can show at most, with another value in each."""
        return math.log2(self.n)

    @classmethod
    def of(cls, values: Sequence[Hashable]) -> "Entropy":
        """Of the values of all rows.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("Got no values, whose entropy is undefined. Give at least one row.")
        counts = np.fromiter(Counter(values).values(), float)
        plug_in = _plug_in(counts)
        return cls(len(values), len(counts), plug_in, plug_in + _miller_madow(len(counts), len(values)))


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

    `first_p` is the one-sided permutation p-value that the rows' first number (or token) is no less varied than
    the reference's; NaN without reference. `findings` says in words what stands out.
    """

    rows: RowFacts
    reference: RowFacts | None
    first_p: float
    findings: tuple[str, ...]


def check_hygiene(
    model: "TransformerBridge", rows: AuditRows, reference: AuditRows | None = None, *, seed: int = 0
) -> Hygiene:
    """Describe rows, and compare them with reference rows, such as the model's own answers to the same prompts.

    Rows that were sampled with one seed for all of them have a first token that hardly varies beyond what the prompts
    do: in the data released with arXiv 2606.00995 the first number has 6.7 bits where fresh sampling gives 9.6. No single
    row shows that; the entropy over rows does.
    """
    mine, theirs = row_facts(model.tokenizer, rows), None
    first_p = math.nan
    if reference is not None:
        theirs = row_facts(model.tokenizer, reference)
        first = (_firsts(model.tokenizer, part, _are_number_lists(mine)) for part in (rows, reference))
        first_p = _less_varied_p(*first, seed=seed)
    return Hygiene(mine, theirs, first_p, tuple(_findings(mine, theirs, first_p)))


def row_facts(tokenizer: Any, rows: AuditRows) -> RowFacts:
    """Facts about one set of rows."""
    tokens = [encode_completion(tokenizer, row.completion) for row in rows]
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
    return [encode_completion(tokenizer, row.completion)[0] for row in rows]


def _less_varied_p(rows: Sequence[int], reference: Sequence[int], *, seed: int) -> float:
    """Permutation p-value of H(reference) - H(rows); the null is that rows and reference could be swapped."""
    if not rows or not reference:
        return math.nan
    _, codes = np.unique([*rows, *reference], return_inverse=True)
    rng, n = np.random.default_rng(seed), len(rows)

    def difference(order: np.ndarray) -> float:
        mine, theirs = (np.bincount(part) for part in (order[:n], order[n:]))
        (mine, theirs) = (counts[counts > 0] for counts in (mine, theirs))
        bias = _miller_madow(len(theirs), len(order) - n) - _miller_madow(len(mine), n)
        return _plug_in(theirs) - _plug_in(mine) + bias

    observed = difference(codes)
    at_least = sum(difference(rng.permutation(codes)) >= observed for _ in range(N_PERMUTATIONS))
    return (1 + at_least) / (1 + N_PERMUTATIONS)


def _plug_in(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))


def _miller_madow(distinct: int, n: int) -> float:
    return (distinct - 1) / (2 * n * math.log(2))


def _findings(rows: RowFacts, reference: RowFacts | None, first_p: float) -> list[str]:
    found = []
    if reference is not None and first_p < SIGNIFICANT:
        what = "first number" if _are_number_lists(rows) else "first token"
        found.append(
            f"The {what} varies less than in the reference rows: {rows.first.bits:.1f} bits against "
            f"{reference.first.bits:.1f} (permutation p = {first_p:.3f}). Usual causes are one sampling seed for all rows, or a "
            "low temperature; a row says less than it seems to, and there are fewer different rows than were counted."
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
