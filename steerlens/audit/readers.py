"""Files and Hub data sets as streams of records; nothing in them is unpickled or run."""

import csv
import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from steerlens.audit.layouts import COLUMNS, UnusableRowError

Record = tuple[int, Any]
"""The number of a line or row, from 1, and what stands there: usually a mapping, an exception where it is unreadable."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def read_records(source: str | Path) -> Iterator[Record]:
    """Every record of a file, of a directory, or of the Hub data set `owner/name`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, or damaged as a whole.
        ModuleNotFoundError: parquet files and data sets need the optional libraries.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _data_set(str(path))
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
    return _json_array(path) if kind == ".json" and _begins_array(path) else _json_lines(path)


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return UnusableRowError("not UTF-8")
    except (ValueError, RecursionError):
        return UnusableRowError("not JSON")


def _begins_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _json_array(path: Path) -> Iterator[Record]:
    value = _parsed(path.read_bytes())
    if isinstance(value, UnusableRowError):
        raise ValueError(
            f"{path} begins with '[' but is {value} as a whole. Repair it, or write one row a line, which loses only "
            "the lines that are damaged."
        )
    yield from enumerate(value, 1)


def _csv(path: Path) -> Iterator[Record]:
    """Under a header; a record may span lines, and is numbered without the header."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
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
    if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
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


def _data_set(name: str) -> Iterator[Record]:
    """A directory or Hub name through the `datasets` library, streamed; of several splits it is train, or the first."""
    try:
        import datasets
    except ImportError as error:
        raise _missing("datasets", f"read {name}") from error
    try:
        splits: Any = datasets.load_dataset(name, streaming=True)
        split = _split(name, list(splits))
        rows = splits[split]
        if wanted := [column for column in rows.column_names or [] if column in COLUMNS]:
            rows = rows.select_columns(wanted)
        yield from enumerate(rows, 1)
    except Exception as error:
        raise ValueError(
            f"The data set {name!r} could not be read by the datasets library: {error}. Give a directory or a Hub data set "
            "of plain data files (data sets that bring code are never run), or one file of it: there, rows that are "
            "malformed are counted and left out."
        ) from error


def _split(name: str, splits: list[str]) -> str:
    split = "train" if "train" in splits else splits[0]
    if len(splits) > 1:
        warnings.warn(
            f"{name} has the splits {', '.join(splits)}; only {split} is read. Give the files of another to read it.",
            stacklevel=2,
        )
    return split


def _missing(library: str, purpose: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{library} is needed to {purpose}. Install it with: pip install 'steerlens[audit]'")
