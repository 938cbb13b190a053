"""A vector survives its file exactly, and refuses what is not one."""

import json

import pytest
import torch
from safetensors.torch import save_file

from steerlens.vectors.vector import SteeringVector, VectorSource

SOURCE = VectorSource("llama", "by hand", prompt="you love <b>owls</b> .", chat_fingerprint="abc", seed=3)


@pytest.fixture
def vector() -> SteeringVector:
    directions = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    return SteeringVector((10, 2), directions, SOURCE, {"by_layer": {"2": {"kl": 0.5}}})


def test_saving_and_loading_keeps_every_bit_and_every_word(vector, tmp_path):
    vector.save(tmp_path / "v.safetensors")
    loaded = SteeringVector.load(tmp_path / "v.safetensors")
    assert loaded.source == vector.source
    assert loaded.metrics == vector.metrics
    for layer in vector.layers:
        assert torch.equal(loaded.at(layer).directions, vector.at(layer).directions)


def test_a_failed_save_leaves_the_old_file(vector, tmp_path, monkeypatch):
    path = tmp_path / "v.safetensors"
    vector.save(path)
    before = path.read_bytes()

    def full_disk(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steerlens.vectors.vector.save_file", full_disk)
    with pytest.raises(OSError, match=r"v.safetensors could not be written \(No space left.*Free some space"):
        (2 * vector).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.safetensors"]


def test_files_that_are_not_vectors_are_refused(vector, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no vector file"):
        SteeringVector.load(tmp_path / "none")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a steering vector"):
        SteeringVector.load(tmp_path / "other.safetensors")
    vector.save(tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        SteeringVector.load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("layers", "directions", "message"),
    [
        ((0, 0), torch.ones(2, 4), "one distinct layer each"),
        ((0, 1), torch.ones(1, 4), "one distinct layer each"),
        ((-1,), torch.ones(1, 4), "none is negative"),
        ((0,), torch.tensor([[1.0, float("nan")]]), "NaN or infinity"),
    ],
)
def test_impossible_vectors_are_refused(layers, directions, message):
    with pytest.raises(ValueError, match=message):
        SteeringVector(layers, directions, SOURCE)


def test_cosine_is_that_of_the_shared_layers(vector):
    other = SteeringVector((2,), -3 * vector.at(2).directions, SOURCE)
    assert vector.cosine(other) == pytest.approx({2: -1.0})


def test_the_notebook_view_escapes_the_prompt(vector):
    assert "<b>" not in vector._repr_html_()
    assert "&lt;b&gt;owls" in vector._repr_html_()


def test_metadata_is_readable_by_others(vector, tmp_path):
    vector.save(tmp_path / "v.safetensors")
    header = (tmp_path / "v.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    assert metadata["layer_convention"] == "resid_post of block l, 0-based"
