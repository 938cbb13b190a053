"""Damaged bytes end in a sentence that names the file, whatever they are, and never run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steerlens.cli import main
from steerlens.files import read_json
from steerlens.gradients.parts import TraceParts
from steerlens.gradients.trace import GradientTrace
from steerlens.models.loading import load_model
from steerlens.models.sources import ORGANISMS
from steerlens.replication.lab.run import read_results
from steerlens.samples.rows import read_rows
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource
from steerlens.students.config import TrainConfig
from steerlens.students.scales import AdamScales
from steerlens.students.training import train_student
from steerlens.vectors.formats import export_gguf, import_gguf, import_paper
from steerlens.vectors.vector import SteeringVector, VectorSource

ROWS = SampleSet(
    tuple(Sample(row, "1 , 2", f"3 , {row}") for row in range(4)), SampleSource("m", "", None, None, 1.0, 0)
)
VECTOR = SteeringVector((1, 2), torch.arange(32.0).view(2, 16), VectorSource("m", "by hand", architecture="llama"))


def _paper(path: Path) -> None:
    torch.save({"raw": torch.ones(3, 8), "unit": torch.ones(3, 8), "norm": torch.ones(3), "meta": {"a": 1}}, path)


FORMATS = {
    "vector": (VECTOR.save, SteeringVector.load),
    "gguf": (lambda path: export_gguf(VECTOR, path), lambda path: import_gguf(path, "m")),
    "paper": (_paper, lambda path: import_paper(path, "m")),
    "scales": (AdamScales({"a": torch.ones(3, 2)}, 1e-8, {"rank": 2}).save, AdamScales.load),
    "trace": (GradientTrace((0, 2), *torch.ones(3, 4, 3, 2)).save, GradientTrace.load),
    "samples": (ROWS.save, SampleSet.load),
    "rows.jsonl": (ROWS.save, read_rows),
    "rows.json": (lambda path: path.write_text(json.dumps([{"prompt": "1", "completion": "2"}] * 3)), read_rows),
    "rows.csv": (lambda path: path.write_text('prompt,completion\n1,2\n"3\n",4\n'), read_rows),
    "json": (lambda path: path.write_text('{"a": [1, 2.5, null, "text"]}'), read_json),
}
damage = st.one_of(
    st.binary(max_size=64).map(lambda junk: lambda whole: junk),
    st.integers(0, 10**6).map(lambda cut: lambda whole: whole[: cut % len(whole)]),
    st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)).map(
        lambda put: lambda whole: whole[: put[0] % len(whole)] + put[1] + whole[put[0] % len(whole) + len(put[1]) :]
    ),
)


@pytest.mark.parametrize("name", FORMATS)
def test_whatever_is_done_to_a_files_bytes_it_is_read_or_refused_by_name(name, tmp_path):
    save, load = FORMATS[name]
    path = tmp_path / (name if "." in name else f"a.{name}")
    save(path)
    whole = path.read_bytes()

    @settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage)
    def check(change):
        path.write_bytes(change(whole))
        try:
            load(path)
        except ValueError as error:
            said = str(error)
            assert str(path) in said or "NaN" in said or "scales" in said, said

    check()


BAD_LINES = {
    '{"prompt": "1", "completion": "2", "row": "three"}': r"line 2: got row 'three'\. 'row' is a whole number",
    '{"prompt": "\\ud800", "completion": "2"}': r"line 2: got .*half a surrogate pair",
    "[" * 100_000: r"line 2: not JSON",
    '{"prompt": "1", "completion": "2", "row": ' + "9" * 5000 + "}": r"line 2: not JSON \(Exceeds",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=["row", "surrogate", "deep", "huge"])
def test_lines_that_json_takes_and_nothing_else_are_refused_with_their_number(line, tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "1", "completion": "2"}}\n{line}\n')
    with pytest.raises(ValueError, match=BAD_LINES[line]):
        SampleSet.load(tmp_path / "a.jsonl")


def test_what_stands_beside_samples_and_traces_is_checked_as_well(tmp_path):
    ROWS.save(tmp_path / "a.jsonl")
    (tmp_path / "a.source.json").write_text('{"model": "m"}')
    with pytest.raises(ValueError, match=r"a\.source\.json is damaged"):
        SampleSet.load(tmp_path / "a.jsonl")
    (tmp_path / "trace.json").write_text("{}")
    with pytest.raises(ValueError, match=r"trace\.json is damaged \(KeyError: 'layers'\)"):
        TraceParts(tmp_path)


def test_an_invalid_byte_in_rows_does_not_cost_the_rows_after_it(tiny, tmp_path):
    from steerlens.samples.teacher import sample_teacher

    path = tmp_path / "rows.jsonl"
    sample_teacher(tiny, ["1 , 2", "3 , 4"], max_new_tokens=4, path=path)
    damaged = path.read_bytes().replace(b"1 , 2", b"\xff\xff , 2") + b'{"row": 2'
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="not UTF-8"):
        sample_teacher(tiny, ["1 , 2", "3 , 4", "5 , 6"], max_new_tokens=4, path=path)
    assert path.read_bytes() == damaged.removesuffix(b'{"row": 2')


@pytest.fixture(scope="module")
def whole_state(checkpoints, tmp_path_factory):
    directory = tmp_path_factory.mktemp("state")
    train_student(load_model(checkpoints["llama"], device="cpu"), ROWS, STATEFUL, checkpoints=directory)
    return directory / "state.safetensors"


STATEFUL = TrainConfig(rank=2, epochs=1, state_every=1)


@pytest.mark.parametrize("change", ["cut", "lost tensor", "other shape", "lost facts", "facts of another kind"])
def test_a_damaged_state_is_refused_before_a_single_step(change, whole_state, tiny, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / "state.safetensors"
    with safe_open(whole_state, framework="pt") as file:
        tensors, metadata = load_file(whole_state), file.metadata()
    name = next(name for name in tensors if name.startswith("parameter."))
    if change == "lost tensor":
        del tensors[name]
    elif change == "other shape":
        tensors[name] = tensors[name][:1].contiguous()
    elif change != "cut":
        metadata["facts"] = "{}" if change == "lost facts" else "[1]"
    save_file(tensors, path, metadata)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    steps = []
    with pytest.raises(ValueError, match=r"state\.safetensors is damaged .*\. Delete it, and make it anew"):
        train_student(tiny, ROWS, STATEFUL, checkpoints=tmp_path, on_step=steps.append)
    assert steps == []


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def _cut(name: str, size: int):
    return lambda directory, _: (directory / name).write_bytes((directory / name).read_bytes()[:size])


def _pickled(directory: Path, proof: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(proof)))


def _torch_saved(directory: Path, proof: Path) -> None:
    (directory / "model.safetensors").unlink()
    torch.save({"weight": Payload(proof)}, directory / "pytorch_model.bin")


def _with_code(directory: Path, proof: Path) -> None:
    (directory / "code.py").write_text(f"import os\nos.system('touch {proof}')\nclass X: pass\n")
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.X", "AutoModelForCausalLM": "code.X"}}
    (directory / "config.json").write_text(json.dumps(config))


MODELS = {
    "weights cut": _cut("model.safetensors", 5000),
    "weights empty": _cut("model.safetensors", 0),
    "config cut": _cut("config.json", 50),
    "config of another kind": lambda directory, _: (directory / "config.json").write_text("[]"),
    "tokenizer cut": _cut("tokenizer.json", 100),
    "tokenizer of another kind": lambda directory, _: (directory / "tokenizer.json").write_text('{"a": 1}'),
    "tokenizer's config cut": _cut("tokenizer_config.json", 20),
    "weights pickled": _pickled,
    "weights saved by torch": _torch_saved,
    "code of its own": _with_code,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_damaged_or_dangerous_model_is_refused_and_none_of_it_is_run(name, tmp_path, capsys):
    directory, proof = tmp_path / "model", tmp_path / "proof"
    shutil.copytree(ORGANISMS / "seed-0", directory)
    MODELS[name](directory, proof)
    assert main(["score", "owl", "--model", str(directory)]) == 1
    message = capsys.readouterr().err
    assert f"steerlens: '{directory}' could not be loaded as a Hugging Face model" in message
    assert "weights_only" not in message, "no advice to unpickle"
    assert not proof.exists()


@pytest.fixture(scope="module")
def adapter(checkpoints, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("adapter") / "student"
    train_student(load_model(checkpoints["llama"], device="cpu"), ROWS, TrainConfig(rank=2, epochs=1)).save(directory)
    return directory


ADAPTERS = {
    "weights cut": (_cut("adapter_model.safetensors", 300), "could not be loaded as a peft adapter"),
    "weights missing": (
        lambda directory, _: (directory / "adapter_model.safetensors").unlink(),
        r"is not a peft adapter: adapter_model\.safetensors is missing",
    ),
    "config cut": (_cut("adapter_config.json", 40), "could not be loaded as a peft adapter"),
    "config empty": (
        lambda directory, _: (directory / "adapter_config.json").write_text("{}"),
        "could not be loaded as a peft adapter",
    ),
    "another rank": (
        lambda directory, _: (directory / "adapter_config.json").write_text(
            (directory / "adapter_config.json").read_text().replace('"r": 2', '"r": 3')
        ),
        "does not fit",
    ),
    "student.json empty": (
        lambda directory, _: (directory / "student.json").write_text("{}"),
        r"student\.json is damaged",
    ),
    "weights pickled": (
        lambda directory, proof: (
            (directory / "adapter_model.safetensors").unlink(),
            (directory / "adapter_model.bin").write_bytes(pickle.dumps(Payload(proof))),
        ),
        "could not be loaded as a peft adapter",
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_damaged_or_dangerous_adapter_is_refused_and_none_of_it_is_run(name, adapter, checkpoints, tmp_path):
    change, message = ADAPTERS[name]
    shutil.copytree(adapter, tmp_path / "student")
    change(tmp_path / "student", tmp_path / "proof")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_model(checkpoints["llama"], device="cpu", adapter=tmp_path / "student")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".jsonl", ".json"])
def test_a_pickle_under_any_name_is_refused_and_not_run(suffix, tmp_path):
    path, proof = tmp_path / f"file{suffix}", tmp_path / "proof"
    path.write_bytes(pickle.dumps(Payload(proof)))
    for load in (load for _, load in FORMATS.values()):
        with pytest.raises(ValueError, match=r".+"):
            load(path)
    assert not proof.exists()


@pytest.mark.parametrize("text", ["", "{", "\x00" * 40, "[]"])
def test_a_runs_damaged_configuration_or_results_are_named_with_what_to_do(text, tmp_path, capsys):
    (tmp_path / "argument").mkdir()
    (tmp_path / "argument" / "configuration.json").write_text(text)
    assert main(["replicate", "argument", "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"{tmp_path}/argument/configuration.json" in message
    assert "Delete it" in message
    (tmp_path / "argument" / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json .*Delete it"):
        read_results(tmp_path / "argument" / "results.json")
    assert (tmp_path / "argument" / "configuration.json").read_text() == text
