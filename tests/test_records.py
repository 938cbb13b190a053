"""What is written comes back as it was; what was not written so is refused by name."""

import json
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from jaxtyping import Float

from steerlens.records import ARRAY, as_json, from_json, load_record, save_record


@dataclass(frozen=True)
class Part:
    values: Annotated[Float[np.ndarray, " layer"], ARRAY]
    name: str | None = None


@dataclass(frozen=True)
class Whole:
    VERSION = 2
    loss: float
    parts: dict[str, Part]
    seeds: tuple[int, ...] = ()


WHOLE = Whole(math.nan, {"one": Part(np.array([0.1, math.nan, 1e-300]), "a")}, (1, 2))


def test_arrays_numbers_that_are_none_and_nested_records_come_back_bit_for_bit(tmp_path):
    save_record(tmp_path / "a.json", WHOLE)
    found = load_record(tmp_path / "a.json", Whole)
    assert math.isnan(found.loss)
    assert found.seeds == (1, 2)
    np.testing.assert_array_equal(found.parts["one"].values, WHOLE.parts["one"].values)
    assert as_json(found) == as_json(WHOLE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lots": 3}, r"lots: unexpected keyword argument \(fields: loss, parts, seeds\)"),
        ({"parts": {"one": {"values": [1.0], "nmae": "a"}}}, r"parts\.one\.nmae: unexpected"),
        ({"loss": "low"}, "loss: input should be a valid number"),
        ({"seeds": [1.5]}, r"seeds\.0: input should be a valid integer"),
    ],
)
def test_a_key_or_a_type_that_does_not_belong_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        from_json(Whole, {**as_json(WHOLE), **change}, where="a.json")


def test_a_missing_key_is_named():
    value = as_json(WHOLE)
    del value["parts"]
    with pytest.raises(ValueError, match=r"parts: .*required|parts: missing"):
        from_json(Whole, value, where="a.json")


def test_a_record_of_another_kind_or_version_is_refused_with_what_to_do(tmp_path):
    save_record(tmp_path / "a.json", WHOLE)
    with pytest.raises(ValueError, match=r"holds Whole, version 2, where Part, version 1, is needed. Delete it"):
        load_record(tmp_path / "a.json", Part)
    value = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**value, "version": 1}))
    with pytest.raises(ValueError, match="version 1, where Whole, version 2"):
        load_record(tmp_path / "a.json", Whole)
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds something else"):
        load_record(tmp_path / "a.json", Whole)
