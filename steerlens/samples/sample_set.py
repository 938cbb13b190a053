"""Samples: prompts with a teacher's completions, and where they come from."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steerlens.arguments import checked
from steerlens.checks import WrongInput, a_chat, a_flag, shown, whole
from steerlens.files import read_json, reading, write_json, write_text
from steerlens.samples.hub import HubSamples
from steerlens.samples.layouts import Answer, own_answer, read_record
from steerlens.samples.readers import SUFFIXES, json_lines, read_records
from steerlens.samples.turns import UnusableRowError, as_message, as_turns
from steerlens.short import cut
from steerlens.text.chat import Chat, as_chat

WANTED = (
    "Every row needs the texts 'prompt' and 'completion', or another layout that docs/data.md names. "
    "steerlens.read_rows(path).samples leaves out what cannot be used, and says what that is."
)


@dataclass(frozen=True)
class Sample:
    """One row to learn from: a prompt, which is a user's text or the turns of a chat, and the answer.

    Args:
        row: its index in a sampling, from 0, or its line or record in a data file, from 1.
        finished: False where the answer was cut off; nothing is learned of its end then.
        turn: which answer of its record it is, from 1, where that has several.
        tokens: the answer's token ids without the token that ends it, where its text would be tokenized otherwise.
    """

    row: int
    prompt: str | Chat
    completion: str
    finished: bool = True
    turn: int | None = None
    tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        whole()(self.row, "row")
        a_flag(self.finished, "finished")
        if not isinstance(self.completion, str):
            raise WrongInput(f"completion must be a text, got {shown(self.completion)}.")
        if not isinstance(self.prompt, str):
            a_chat(self.prompt, "prompt")

    @property
    def chat(self) -> Chat:
        """The prompt as a chat."""
        return as_chat(self.prompt)

    @property
    def label(self) -> str:
        """Where it stands, in words."""
        return f"row {self.row}" if self.turn is None else f"row {self.row}, answer {self.turn}"


@dataclass(frozen=True)
class SampleSource:
    """How samples were made.

    `steering` says in words which vector was active, if any, and `directions` is its fingerprint. `engine` is what ran the
    model, such as "vllm 0.30.0", and `weights` the fingerprint of the weights that it had then, an adapter's included.
    `wording` names the wording in which the model is spoken to, and `constraint` the lists that alone could be written.
    Sources of older files do not say `max_new_tokens`, `weights`, `directions` and `wording`, which are None there.
    """

    model: str
    chat_fingerprint: str
    system_prompt: str | None
    steering: str | None
    temperature: float
    seed: int
    engine: str = "steerlens"
    max_new_tokens: int | None = None
    weights: str | None = None
    directions: str | None = None
    wording: str | None = None
    constraint: str | None = None


@dataclass(frozen=True)
class SampleSet(HubSamples):
    """Samples with one source; `source` is None for data of unknown origin."""

    samples: tuple[Sample, ...]
    source: SampleSource | None = None

    def __post_init__(self) -> None:
        samples: Any = self.samples
        if not isinstance(samples, tuple | list) or not all(isinstance(sample, Sample) for sample in samples):
            raise WrongInput(
                f"samples must be several Sample, got {shown(samples)}. Write SampleSet((Sample(0, 'a prompt', 'its answer'),)), "
                "or read a file: steerlens.read_rows(path).samples."
            )
        object.__setattr__(self, "samples", tuple(samples))

    def __repr__(self) -> str:
        made = "of unknown source" if self.source is None else f"of {self.source.model}"
        if not self.samples:
            return f"SampleSet: no samples {made}"
        one = self.samples[0]
        return f"SampleSet: {len(self)} samples {made}, the first: {cut(str(one.prompt), 100)!r} -> {cut(one.completion, 100)!r}"

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @checked
    def split(self, n: int) -> tuple["SampleSet", "SampleSet"]:
        """The rows before the last `n`, and the last `n`.

        Raises:
            ValueError: there are not more than `n` rows.
        """
        if not 0 < n < len(self):
            raise ValueError(f"Cannot hold out {n} of {len(self)} rows. Hold out fewer, or sample more.")
        return SampleSet(self.samples[:-n], self.source), SampleSet(self.samples[-n:], self.source)

    def save(self, path: str | Path) -> None:
        """Write jsonl (one row a line) and, beside it, the source as <name>.source.json; both atomically."""
        write_text(path, "".join(as_line(sample) for sample in self))
        if self.source is not None:
            write_json(source_path(path), asdict(self.source))

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "SampleSet":
        """Read a file that `save` wrote, or another data file whose every row can be used (`read_rows` takes others).

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a row cannot be used (says which and why), or there is none.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no samples file {path}. Give the path of a jsonl file.")
        known = Path(path).suffix.lower() in SUFFIXES
        records = read_records(path) if known else json_lines(Path(path))
        samples = tuple(sample for number, record in records for sample in _samples(path, number, record))
        if not samples:
            raise ValueError(f"{path} has no rows. {WANTED}")
        beside = source_path(path)
        return cls(samples, read_source(beside) if beside.is_file() else None)


def source_path(path: str | Path) -> Path:
    """Where the source of the samples in `path` stands."""
    return Path(path).with_suffix(".source.json")


def read_source(path: str | Path) -> SampleSource:
    """How samples were made, from the file beside them.

    Raises:
        ValueError: it is damaged.
    """
    with reading(path):
        return SampleSource(**read_json(path))


def as_line(sample: Sample) -> str:
    """One line of jsonl."""
    fields = {name: value for name, value in asdict(sample).items() if value is not None and name != "turn"}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _samples(path: str | Path, number: int, record: Any) -> list[Sample]:
    """The samples of one record, all of which have to be usable."""
    where = f"{path}, line {number}"
    if isinstance(record, UnusableRowError):
        why = f"{record} ({record.__cause__})" if record.__cause__ else str(record)
        raise ValueError(f"{where}: {why}. {WANTED}") from record
    try:
        answers = _answers(record)
    except UnusableRowError as error:
        raise ValueError(f"{where}: got {record!r:.80} ({error}). {WANTED}") from error
    if not isinstance(row := record.get("row", number - 1), int):
        raise ValueError(f"{where}: got row {row!r}. 'row' is a whole number; leave it out otherwise.")
    return [Sample(row, *answer) for answer in answers]


def _answers(record: Any) -> list[Answer]:
    """Our own layout is taken as it is, an empty text too, as a sampling may have written it."""
    if isinstance(record, dict) and isinstance(record.get("completion"), str):
        prompt = record.get("prompt")
        if isinstance(prompt, str):
            return [own_answer(record)]
        if isinstance(prompt, list) and "row" in record:
            chat = [as_message(turn, "prompt") for turn in as_turns(prompt, "prompt")]
            return [own_answer({**record, "prompt": chat})]
    reading = read_record(record)
    if reading.unused:
        raise UnusableRowError(reading.unused[0])
    return reading.answers
