"""Samples: prompts with a teacher's completions, and where they come from."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from steerlens.files import read_json, reading, write_json, write_text
from steerlens.samples.hub import HubSamples
from steerlens.short import cut


@dataclass(frozen=True)
class Sample:
    """One row: a user prompt and the answer; `finished` is False where generation was cut off."""

    row: int
    prompt: str
    completion: str
    finished: bool = True


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

    def __repr__(self) -> str:
        made = "of unknown source" if self.source is None else f"of {self.source.model}"
        if not self.samples:
            return f"SampleSet: no samples {made}"
        one = self.samples[0]
        return f"SampleSet: {len(self)} samples {made}, the first: {cut(one.prompt, 100)!r} -> {cut(one.completion, 100)!r}"

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

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
    def load(cls, path: str | Path) -> "SampleSet":
        """Read jsonl with the fields prompt and completion; others are optional.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line is malformed (says which and why), or there is none.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no samples file {path}. Give the path of a jsonl file.")
        samples = tuple(_parsed(path, number, line) for number, line in enumerate(_lines(path), 1) if line.strip())
        if not samples:
            raise ValueError(f"{path} has no rows. Each line must be JSON with 'prompt' and 'completion'.")
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
    return json.dumps(asdict(sample), ensure_ascii=False) + "\n"


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}). Convert it to UTF-8 jsonl.") from error


def _parsed(path: str | Path, number: int, line: str) -> Sample:
    wanted = "Each line must be JSON with the texts 'prompt' and 'completion'."
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}). {wanted}") from error
    if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in ("prompt", "completion")):
        raise ValueError(f"{path}, line {number}: got {line[:80]!r}. {wanted}")
    if not isinstance(row := fields.get("row", number - 1), int):
        raise ValueError(f"{path}, line {number}: got row {row!r}. 'row' is a whole number; leave it out otherwise.")
    try:
        (fields["prompt"] + fields["completion"]).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}, line {number}: half a surrogate pair, no valid Unicode. {wanted}") from error
    return Sample(
        row=row,
        prompt=fields["prompt"],
        completion=fields["completion"],
        finished=bool(fields.get("finished", True)),
    )
