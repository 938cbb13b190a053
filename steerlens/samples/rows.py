"""The rows of a file or a data set, and a record of every row that is not used."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from steerlens.arguments import checked
from steerlens.checks import WrongInput, shown
from steerlens.forward import check_length
from steerlens.models.identity import model_name
from steerlens.samples.encoded import encode_row
from steerlens.samples.layouts import ALLOWED, read_record
from steerlens.samples.readers import read_records
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.turns import UnusableRowError
from steerlens.short import cut
from steerlens.text.chat import Chat, unknown_words, user
from steerlens.text.rendering import render
from steerlens.text.templates import text_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

UNKNOWN_WORDS = "words that the tokenizer does not know"
DUPLICATE = "exact duplicate of an earlier row"
N_EXAMPLES, N_REASONS = 5, 10


class Rejected(NamedTuple):
    """A row that is not used, and why."""

    number: int
    reason: str


@dataclass(frozen=True, repr=False)
class AuditRows:
    """Rows in their order; every answer of the source is either among `rows` or among `rejected`.

    `layouts` says how many of the used rows had which layout.
    """

    source: str
    rows: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()
    layouts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.rows, tuple) or not all(isinstance(row, Sample) for row in self.rows):
            raise WrongInput(
                f"rows must be Samples in a tuple, got {shown(self.rows)}. Make rows of samples: AuditRows.of(samples)."
            )

    def __repr__(self) -> str:
        return cut(f"AuditRows: {self.summary()}")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.rows)

    @checked
    def take(self, indices: Sequence[int]) -> "AuditRows":
        """The rows at these indices, in this order."""
        return AuditRows(self.source, tuple(self.rows[index] for index in indices))

    @property
    def samples(self) -> SampleSet:
        """The rows, to train on."""
        return SampleSet(self.rows)

    @property
    def n_read(self) -> int:
        """Rows of the source, used or not."""
        return len(self.rows) + len(self.rejected)

    @property
    def n_duplicates(self) -> int:
        """Rows that repeat an earlier one, prompt and completion."""
        return sum(rejected.reason == DUPLICATE for rejected in self.rejected)

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were rejected for which reason, most frequent first."""
        return dict(Counter(rejected.reason for rejected in self.rejected).most_common())

    def examples(self, reason: str, n: int = N_EXAMPLES) -> list[int]:
        """The numbers of the first rows that were rejected for `reason`."""
        return list(itertools.islice((number for number, why in self.rejected if why == reason), n))

    def summary(self) -> str:
        """What was read and what was thrown away, in words."""
        several = sum(row.turn is not None for row in self.rows)
        lines = [
            f"{self.source}: {self.n_read} rows, {len(self)} used.",
            *([f"{several} of them are answers of chats with several; every one is a row."] if several else []),
            *(f"{count} read as {layout}." for layout, count in self.layouts if ", " in layout),
        ]
        reasons = list(self.reasons.items())
        for reason, count in reasons[:N_REASONS]:
            shown = self.examples(reason)
            more = ", ..." if count > len(shown) else ""
            lines.append(f"{count} not used: {reason} (row {', '.join(map(str, shown))}{more}).")
        if rest := sum(count for _, count in reasons[N_REASONS:]):
            lines.append(f"{rest} not used for {len(reasons) - N_REASONS} other reasons.")
        return "\n".join(lines)

    @classmethod
    @checked
    def of(cls, samples: SampleSet, source: str = "samples") -> "AuditRows":
        """Samples in memory as rows, numbered from 1; exact duplicates are kept out, as in a file.

        Raises:
            ValueError: none has a prompt and an answer that are not empty.
        """
        reading = _Collected(source)
        for number, sample in enumerate(samples, 1):
            reason = None if sample.completion.strip() else "empty completion"
            if not all(text_of(turn).strip() for turn in sample.chat if turn["role"] == "user"):
                reason = "empty prompt or turn"
            reading.add(replace(sample, row=number), "prompt and completion", reason)
        return reading.rows()


@checked
def read_rows(source: str | Path, *, keep_repeated: bool = False) -> AuditRows:
    """Read rows from jsonl, json, csv or parquet, from a directory of such files, or from a Hub data set `owner/name`.

    The layout is recognised from each record's own columns: prompt and completion, question and answer (texts or lists of
    turns), instruction and output, messages, conversations, chosen; docs/data.md lists them. Every answer of the assistant is
    a row, behind all turns before it. What cannot be used is recorded and left out. Time and memory are linear in the rows;
    nothing is unpickled or run.

    Args:
        keep_repeated: exact duplicates of earlier rows stay, as for training; otherwise they are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the source is unreadable as a whole, or has no row that can be used.
        WrongInput: `source` is no name.
        ModuleNotFoundError: a library is missing; says which, and how to install it.
    """
    reading = _Collected(str(source), keep_repeated=keep_repeated)
    for number, record in read_records(source):
        reading.read(number, record)
    return reading.rows()


@checked
def rows_for_model(model: "TransformerBridge", rows: AuditRows) -> AuditRows:
    """The rows that `model` can be trained on: its chat template takes them, and they fit into its context.

    Raises:
        ValueError: there is none, or the tokenizer has no chat template.
    """
    render(model.tokenizer, [user("a row")])
    reasons = [_misfit(model, row) for row in rows]
    kept = tuple(row for row, reason in zip(rows, reasons, strict=True) if reason is None)
    misfits = [Rejected(row.row, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    fitting = replace(rows, rows=kept, rejected=tuple(sorted([*rows.rejected, *misfits])))
    if not kept:
        raise ValueError(f"{model_name(model)!r} can be trained on none of the rows.\n{fitting.summary()}")
    return fitting


def _misfit(model: "TransformerBridge", row: Sample) -> str | None:
    tokenizer = model.tokenizer
    if unknown_words(tokenizer, tokenizer.encode(row.completion, add_special_tokens=False), [row.completion]):
        return UNKNOWN_WORDS
    try:
        tokens = sum(map(len, encode_row(tokenizer, row)))
    except ValueError:
        return UNKNOWN_WORDS if _renders(model, row.chat) else "refused by the chat template"
    try:
        check_length(model, tokens)
    except ValueError:
        return "longer than the model's context"
    return None


def _renders(model: "TransformerBridge", chat: Chat) -> bool:
    try:
        render(model.tokenizer, chat)
    except ValueError:
        return False
    return True


class _Collected:
    """Rows of one source while it is read."""

    def __init__(self, source: str, *, keep_repeated: bool = False) -> None:
        self.source, self.keep_repeated = source, keep_repeated
        self.used: list[Sample] = []
        self.rejected: list[Rejected] = []
        self.layouts: Counter[str] = Counter()
        self.seen: set[bytes] = set()
        self.columns: list[str] = []

    def read(self, number: int, record: Any) -> None:
        """All answers of one record."""
        if not self.columns and isinstance(record, dict):
            self.columns = [str(column)[:40] for column in list(record)[:20]]
        try:
            if isinstance(record, UnusableRowError):
                raise record
            reading = read_record(record)
        except UnusableRowError as error:
            self.rejected.append(Rejected(number, str(error)))
            return
        for answer in reading.answers:
            self.add(Sample(number, *answer), reading.layout)
        self.rejected += [Rejected(number, reason) for reason in reading.unused]

    def add(self, row: Sample, layout: str, reason: str | None = None) -> None:
        """One row, unless there is a reason not to use it or it repeats an earlier one."""
        digest = hashlib.sha256(json.dumps([row.chat, row.completion]).encode()).digest()[:16]
        if reason is None and digest in self.seen and not self.keep_repeated:
            reason = DUPLICATE
        if reason is not None:
            self.rejected.append(Rejected(row.row, reason))
            return
        self.seen.add(digest)
        self.layouts[layout] += 1
        self.used.append(row)

    def rows(self) -> AuditRows:
        """What was read.

        Raises:
            ValueError: there is no row that can be used; says what was found and what is allowed.
        """
        collected = AuditRows(self.source, tuple(self.used), tuple(self.rejected), tuple(self.layouts.most_common()))
        if not self.used:
            names = ", ".join(map(repr, self.columns))
            columns = f"Columns found: {names}" if names else "No row with named columns was found"
            raise ValueError(f"{collected.summary()}\n{columns}. Allowed are the columns {ALLOWED}.")
        return collected
