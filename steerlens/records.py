"""Records: frozen dataclasses that are written as JSON and read back strictly.

A file says which kind of record it holds and in which version. A field that is missing, unknown or of the wrong type is
refused by name, so that a misspelt key is found when a file is read and not hours later.
"""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import core_schema

from steerlens.arguments import checked
from steerlens.checks import WrongInput, shown
from steerlens.files import read_json, write_text

R = TypeVar("R")


class _Array:
    """Marks a field that is an array in memory and lists of numbers in the file."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: np.asarray(value, dtype=float),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda array: array.tolist()),
        )


ARRAY = _Array()
"""`Annotated[Float[np.ndarray, " layer"], ARRAY]` is a field of a record that holds an array."""


class _Adapter(Generic[R]):
    """How one kind of record is read and written; its dataclass may say its VERSION, which is 1 otherwise."""

    def __init__(self, kind: type[R]) -> None:
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise WrongInput(
                f"A record is a dataclass such as steerlens.StudentRecord, got {shown(kind)}. Define one, and give it or an "
                "instance of it."
            )
        config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")
        self._adapter = TypeAdapter(tuple[kind], config=config)  # pyright: ignore[reportInvalidTypeForm]
        self.head = {"kind": kind.__name__, "version": getattr(kind, "VERSION", 1)}

    def write(self, record: R) -> Any:
        return json.loads(self._adapter.dump_json((record,)))[0]

    def read(self, value: Any) -> R:
        return self._adapter.validate_python((value,))[0]


def as_json(record: Any) -> dict[str, Any]:
    """A record as a value that JSON can hold; not-a-number is written as text."""
    return _Adapter(type(record)).write(record)


def from_json(kind: type[R], value: Any, *, where: str) -> R:
    """The record of this kind that `as_json` wrote.

    Args:
        where: named in errors, such as the file.

    Raises:
        ValueError: a field is missing, unknown, or of another type; names each.
    """
    try:
        return _Adapter(kind).read(value)
    except ValidationError as error:
        faults = "; ".join(_fault(kind, one["loc"][1:], one["msg"]) for one in error.errors())
        raise ValueError(f"{where} does not hold a {kind.__name__}. {faults}.") from error


def _fault(kind: Any, at: tuple[int | str, ...], message: str) -> str:
    """What is wrong with one field, and the fields that its dataclass has."""
    for name in at[:-1]:
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        kind = hints.get(str(name), kind)
    fields = (
        f" (fields: {', '.join(one.name for one in dataclasses.fields(kind))})"
        if dataclasses.is_dataclass(kind)
        else ""
    )
    return f"{'.'.join(map(str, at)) or 'all of it'}: {message.lower()}{fields}"


@checked
def save_record(path: str | Path, record: Any) -> None:
    """Write a record, with its kind and version, atomically."""
    adapter = _Adapter(type(record))
    write_text(path, json.dumps({**adapter.head, "record": adapter.write(record)}, indent=2) + "\n")


@checked
def load_record(path: str | Path, kind: type[R]) -> R:
    """Read a record of this kind.

    Raises:
        ValueError: the file is damaged, or holds another kind, another version, or other fields.
    """
    head, found = _Adapter(kind).head, read_json(path)
    there = {key: found.get(key) for key in head} if isinstance(found, dict) else {}
    if there != head:
        raise ValueError(
            f"{path} holds {there.get('kind') or 'something else'}, version {there.get('version')}, where "
            f"{head['kind']}, version {head['version']}, is needed. Delete it, and run again to make it anew."
        )
    return from_json(kind, found.get("record"), where=str(path))
