"""The rows that are audited, and a record of every row that is not."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from steerlens.arguments import checked
from steerlens.audit.layouts import ALLOWED, UnusableRowError, as_row
from steerlens.audit.readers import Record, read_records
from steerlens.forward import check_length
from steerlens.models.identity import model_name
from steerlens.samples.sample_set import SampleSet
from steerlens.short import cut
from steerlens.text.chat import Chat, encode_completion, encode_prompt, user
from steerlens.text.rendering import render

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

DUPLICATE = "exact duplicate of an earlier row"
N_EXAMPLES = 5


@dataclass(frozen=True)
class AuditRow:
    """The turns of a chat and the completion that a model would be trained on; `number` is its line or row, from 1."""

    number: int
    chat: Chat
    completion: str


class Rejected(NamedTuple):
    """A row that is not used, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class AuditRows:
    """Rows in their order; every record of the source is either among `rows` or among `rejected`.

    `layouts` says how many of the used rows had which layout.
    """

    source: str
    rows: tuple[AuditRow, ...]
    rejected: tuple[Rejected, ...] = ()
    layouts: tuple[tuple[str, int], ...] = ()

    def __repr__(self) -> str:
        return cut(f"AuditRows: {self.summary()}")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[AuditRow]:
        return iter(self.rows)

    def take(self, indices: Sequence[int]) -> "AuditRows":
        """The rows at these indices, in this order."""
        return AuditRows(self.source, tuple(self.rows[index] for index in indices))

    @property
    def n_read(self) -> int:
        """Records in the source, used or not."""
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
        lines = [f"{self.source}: {self.n_read} rows, {len(self)} used."]
        for reason, count in self.reasons.items():
            shown = self.examples(reason)
            more = ", ..." if count > len(shown) else ""
            lines.append(f"{count} not used: {reason} (row {', '.join(map(str, shown))}{more}).")
        return "\n".join(lines)

    @classmethod
    def of(cls, samples: SampleSet, source: str = "samples") -> "AuditRows":
        """Samples in memory as rows; exact duplicates are kept out, as in a file."""
        records = (
            (number, {"prompt": sample.prompt, "completion": sample.completion})
            for number, sample in enumerate(samples, 1)
        )
        return _collected(source, records)


def read_rows(source: str | Path) -> AuditRows:
    """Read rows from jsonl, json, csv or parquet, from a directory of such files, or from a Hub data set `owner/name`.

    The layout is recognised from each row's own columns: prompt and completion (two texts, or TRL's two lists of turns),
    Alpaca (instruction, input, output), messages (role, content) or ShareGPT (from, value). The last turn by the
    assistant is the completion, the turns before it are the chat. Rows that cannot be used are recorded and left out,
    and so is every repetition of a row. Time and memory are linear in the rows; nothing is unpickled or run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the source is unreadable as a whole, or has no row that can be used.
        ModuleNotFoundError: a library is missing; says which, and how to install it.
    """
    return _collected(str(source), read_records(source))


@checked
def rows_for_model(model: "TransformerBridge", rows: AuditRows) -> AuditRows:
    """The rows that `model` can be trained on: its chat template takes them, and they fit into its context.

    Raises:
        ValueError: there is none, or the tokenizer has no chat template.
    """
    render(model.tokenizer, [user("a row")])
    reasons = [_misfit(model, row) for row in rows]
    kept = tuple(row for row, reason in zip(rows, reasons, strict=True) if reason is None)
    misfits = [Rejected(row.number, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    fitting = replace(rows, rows=kept, rejected=tuple(sorted([*rows.rejected, *misfits])))
    if not kept:
        raise ValueError(f"{model_name(model)!r} can be trained on none of the rows.\n{fitting.summary()}")
    return fitting


def _misfit(model: "TransformerBridge", row: AuditRow) -> str | None:
    tokenizer = model.tokenizer
    try:
        tokens = [*encode_prompt(tokenizer, row.chat), *encode_completion(tokenizer, row.completion)]
    except ValueError:
        return "words that the tokenizer does not know" if _renders(model, row.chat) else "refused by the chat template"
    try:
        check_length(model, len(tokens))
    except ValueError:
        return "longer than the model's context"
    return None


def _renders(model: "TransformerBridge", chat: Chat) -> bool:
    try:
        render(model.tokenizer, chat)
    except ValueError:
        return False
    return True


def _collected(source: str, records: Iterable[Record]) -> AuditRows:
    rows, rejected, layouts, seen, found = [], [], Counter(), set(), []
    for number, record in records:
        if not found and isinstance(record, dict):
            found = [str(column)[:40] for column in list(record)[:20]]
        try:
            if isinstance(record, UnusableRowError):
                raise record
            layout, chat, completion = as_row(record)
            if (digest := _digest(chat, completion)) in seen:
                raise UnusableRowError(DUPLICATE)
        except UnusableRowError as error:
            rejected.append(Rejected(number, str(error)))
            continue
        seen.add(digest)
        layouts[layout] += 1
        rows.append(AuditRow(number, chat, completion))
    collected = AuditRows(source, tuple(rows), tuple(rejected), tuple(layouts.most_common()))
    if not rows:
        columns = f"Columns found: {', '.join(map(repr, found))}" if found else "No row with named columns was found"
        raise ValueError(f"{collected.summary()}\n{columns}. Allowed are the columns {ALLOWED}.")
    return collected


def _digest(chat: Chat, completion: str) -> bytes:
    return hashlib.sha256(json.dumps([chat, completion]).encode()).digest()[:16]
