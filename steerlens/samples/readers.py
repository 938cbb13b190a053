"""Files and Hub data sets as streams of records; nothing in them is unpickled or run."""

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from steerlens.checks import WrongInput, a_path, shown
from steerlens.files import text_encoding
from steerlens.samples.layouts import COLUMNS
from steerlens.samples.turns import UnusableRowError
from steerlens.warn import warn

Record = tuple[int, Any]
"""The number of a line or row, from 1, and what stands there: usually a mapping, an exception where it is unreadable."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def read_records(source: str | Path) -> Iterator[Record]:
    """Every record of a file, of a directory, or of the Hub data set `owner/name`.

    Raises:
        FileNotFoundError: there is no such file.
        WrongInput: `source` is no name.
        ValueError: the file is of another kind, or damaged as a whole.
        ModuleNotFoundError: parquet files and data sets need the optional libraries.
    """
    if not isinstance(source, str | Path):
        raise WrongInput(
            f"A file or data set is given by its name, got {shown(source)}. Write 'rows.jsonl' or owner/name."
        )
    path = Path(a_path(source, "source")).expanduser()
    if path.is_dir():
        return _directory(path)
    if path.is_file():
        return _file(path)
    if HUB_NAME.fullmatch(str(source)) and path.suffix.lower() not in SUFFIXES:
        return _data_set(str(source))
    raise FileNotFoundError(
        f"There is no data file {str(source)!r}. Give a file ({', '.join(SUFFIXES)}), a directory of such files, or a "
        "Hugging Face data set as owner/name."
    )


def _file(path: Path) -> Iterator[Record]:
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"{path} is of no known kind. Allowed are {', '.join(SUFFIXES)}; rename or convert it.")
    if kind == ".csv":
        return _csv(path)
    if kind == ".parquet":
        return _parquet(path)
    return _json(path) if kind == ".json" else json_lines(path)


def json_lines(path: Path) -> Iterator[Record]:
    """The record of every line that is not blank."""
    with _opened(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip(" \t\r\n"):
                yield number, _parsed(line)


@contextlib.contextmanager
def _opened(path: Path, newline: str) -> Iterator[TextIO]:
    """A text file in the encoding that it names; bytes that are no text in it become surrogates, which `_is_text` finds."""
    encoding = text_encoding(path)
    with path.open(encoding=encoding, errors="surrogateescape", newline=newline) as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not {encoding} text, as it says ({error}). Write it anew in UTF-8.") from error


def _is_text(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _parsed(text: str) -> Any:
    if not _is_text(text):
        return UnusableRowError("not UTF-8")
    try:
        return json.loads(text.lstrip("\ufeff"))  # files that were joined have a mark in their midst
    except (ValueError, RecursionError) as error:
        reason = UnusableRowError("not JSON")
        reason.__cause__ = error
        return reason


def _json(path: Path) -> Iterator[Record]:
    """A list of records, or one; otherwise a record in every line."""
    with _opened(path, newline="\n") as file:
        text = file.read()
    value = _parsed(text)
    if isinstance(value, list):
        yield from enumerate(value, 1)
    elif not isinstance(value, UnusableRowError):
        yield 1, value
    elif text.lstrip("\ufeff \t\r\n").startswith("["):
        raise ValueError(
            f"{path} begins with '[' but is {value} as a whole. Repair it, or write one row a line, which loses only "
            "the lines that are damaged."
        )
    else:
        yield from json_lines(path)


def _csv(path: Path) -> Iterator[Record]:
    """Under a header; a record may span lines, and is numbered without the header."""
    with _opened(path, newline="") as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
        except csv.Error as error:
            raise ValueError(
                f"{path} has no readable header ({error}). The first line must name the columns."
            ) from error
        numbers = itertools.count(1)
        while (cells := _next_cells(rows)) is not None:
            if cells != []:
                yield next(numbers), _under(header, cells)


def _next_cells(rows: Iterator[list[str]]) -> list[str] | UnusableRowError | None:
    try:
        return next(rows, None)
    except csv.Error:
        return UnusableRowError("not CSV, or a cell is longer than 131,072 characters")


def _under(header: list[str], cells: list[str] | UnusableRowError) -> Any:
    if isinstance(cells, UnusableRowError):
        return cells
    if len(cells) != len(header):
        return UnusableRowError("another number of cells than the header has")
    if not all(map(_is_text, cells)):
        return UnusableRowError("not UTF-8")
    return dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise _missing("pyarrow", f"read {path}") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = [name for name in file.schema_arrow.names if name in COLUMNS] or file.schema_arrow.names
            batches = file.iter_batches(batch_size=1000, columns=wanted)
            yield from enumerate(itertools.chain.from_iterable(map(_arrow_rows, batches)), 1)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable parquet file ({error}). Write it anew, or give jsonl.") from error


def _arrow_rows(batch: Any) -> Iterable[Any]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return [_arrow_row(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _arrow_row(row: Any) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError:
        return UnusableRowError("not UTF-8")


def _directory(path: Path) -> Iterator[Record]:
    """The files of one split, as the `datasets` library divides a directory, numbered as one."""
    with _readable_data_set(str(path)) as datasets:
        found: Any = datasets.load_dataset_builder(str(path)).config.data_files
        files = {str(split): list(map(Path, names)) for split, names in found.items()}
        chosen = files[_split(str(path), list(files))]
    if all(file.suffix.lower() in SUFFIXES for file in chosen):
        yield from enumerate((record for file in chosen for _, record in _file(file)), 1)
    else:
        yield from _data_set(str(path))


def _data_set(name: str) -> Iterator[Record]:
    """A Hub name through the `datasets` library, streamed; of several splits it is train, or the first."""
    with _readable_data_set(name) as datasets:
        splits: Any = datasets.load_dataset(name, streaming=True)
        rows = splits[_split(name, list(map(str, splits)))]
        if wanted := [column for column in rows.column_names or [] if column in COLUMNS]:
            rows = rows.select_columns(wanted)
        yield from enumerate(rows, 1)


@contextlib.contextmanager
def _readable_data_set(name: str) -> Iterator[Any]:
    try:
        import datasets
    except ImportError as error:
        raise _missing("datasets", f"read {name}") from error
    try:
        yield datasets
    except Exception as error:
        raise ValueError(
            f"The data set {name!r} could not be read by the datasets library: {error}. Give a directory or a Hub data set "
            "of plain data files (data sets that bring code are never run), or one file of it: there, rows that are "
            "malformed are counted and left out."
        ) from error


def _split(name: str, splits: list[str]) -> str:
    split = "train" if "train" in splits else splits[0]
    if len(splits) > 1:
        warn(f"{name} has the splits {', '.join(splits)}; only {split} is read. Give the files of another to read it.")
    return split


def _missing(library: str, purpose: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{library} is needed to {purpose}. Install it with: pip install 'steerlens[audit]'")
