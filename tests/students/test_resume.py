"""A training that is killed goes on, and ends as if it had not been."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from steerlens.gradients.parts import TraceParts
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student

CONFIG = TrainConfig(rank=2, learning_rate=1e-2, epochs=2, batch_size=4, state_every=3)


class Killed(BaseException):
    """Stands for a kill: nothing in the library catches it."""


def killed_at(step: int):
    def on_update(seen) -> None:
        if seen.step == step:
            raise Killed

    return on_update


def weights(student) -> list[torch.Tensor]:
    return [p.detach() for p in huggingface_model(student.model).parameters()]


def interrupted(model, samples, config: TrainConfig, directory: Path, stops=(1, 4, 5, 8)):
    for step in stops[: config.epochs * 2]:
        with pytest.raises(Killed):
            train_student(model, samples, config, checkpoints=directory, on_update=killed_at(step))
    return train_student(model, samples, config, checkpoints=directory)


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw"}, {"optimizer": "sgd_momentum", "rotation_seed": 1}, {"method": "full", "epochs": 1}]
    + [pytest.param({"optimizer": name}, marks=pytest.mark.slow) for name in ("rmsprop", "sgd", "signsgd", "muon")]
    + [pytest.param({"clip_norm": None, "row_clip_norm": 0.1}, marks=pytest.mark.slow)],
    ids=str,
)
def test_an_interrupted_training_ends_at_the_same_weights_bit_for_bit(tiny, samples, tmp_path, changes):
    config = replace(CONFIG, **changes)
    whole = train_student(tiny, samples, config, checkpoints=tmp_path / "whole")
    pieces = interrupted(tiny, samples, config, tmp_path / "pieces")
    assert pieces.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(weights(pieces), weights(whole), strict=True))


def test_dropout_goes_on_from_where_it_was_and_depends_on_the_seed_alone(checkpoints, samples, tmp_path):
    gpt2 = load_model(checkpoints["gpt2"], device="cpu")  # GPT-2 has dropout in its configuration
    torch.manual_seed(5)
    whole = train_student(gpt2, samples, CONFIG, checkpoints=tmp_path / "whole")
    torch.manual_seed(6)
    pieces = interrupted(gpt2, samples, CONFIG, tmp_path / "pieces")
    assert all(torch.equal(a, b) for a, b in zip(weights(pieces), weights(whole), strict=True))


def test_a_finished_training_is_taken_from_its_state(tiny, samples, tmp_path):
    first = train_student(tiny, samples, CONFIG, checkpoints=tmp_path)
    steps = []
    again = train_student(tiny, samples, CONFIG, checkpoints=tmp_path, on_step=steps.append)
    assert steps == []
    assert again.losses == first.losses
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(first), strict=True))


def test_the_state_holds_tensors_and_json_alone(tiny, samples, tmp_path):
    train_student(tiny, samples, CONFIG, checkpoints=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert {"format", "facts"} == set(file.metadata())
        assert any(name.startswith("optimizer.") for name in file.keys())  # noqa: SIM118


def test_the_state_of_another_training_is_refused_and_stays(tiny, samples, tmp_path):
    train_student(tiny, samples, CONFIG, checkpoints=tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"another training \(learning_rate: 0.01 there, 0.02 here\).*directory"):
        train_student(tiny, samples, replace(CONFIG, learning_rate=2e-2), checkpoints=tmp_path)
    with pytest.raises(ValueError, match=r"another training \(rows: "):
        train_student(tiny, samples.split(3)[0], CONFIG, checkpoints=tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_state_without_a_place_is_refused(tiny, samples):
    with pytest.raises(ValueError, match=r"checkpoints=None\. Give a directory"):
        train_student(tiny, samples, CONFIG)


def test_a_damaged_state_is_explained(tiny, samples, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"is damaged .* Delete it"):
        train_student(tiny, samples, CONFIG, checkpoints=tmp_path)


TRACED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from steerlens import SampleSet, SteeringVector, TrainConfig, load_model, trace_gradients, train_student
from steerlens.vectors.vector import VectorSource

checkpoint, rows, root = sys.argv[1:]
model, samples = load_model(checkpoint, device="cpu"), SampleSet.load(rows)
vector = SteeringVector((1, 3), torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), VectorSource("llama", ""))
config = TrainConfig(rank=2, learning_rate=1e-2, epochs=40, batch_size=4, state_every=7, checkpoint_every=50)

def train(directory):
    recorder = trace_gradients(model, vector, directory=directory / "trace", part_steps=5)
    student = train_student(
        model, samples, config, checkpoints=directory / "checkpoints",
        on_start=recorder.watch, on_step=recorder.record,
    )
    student.save(directory / "student")

def killed_after(seconds):
    child = os.fork()
    if not child:
        train(Path(root) / "killed")
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

moments = random.Random(0)
print(sum(killed_after(moments.uniform(0.05, 0.35)) for _ in range(10)))
train(Path(root) / "killed")
train(Path(root) / "whole")
"""


@pytest.mark.slow
def test_a_training_killed_at_ten_random_moments_ends_with_the_same_weights_and_trace(checkpoints, samples, tmp_path):
    samples.save(tmp_path / "rows.jsonl")
    command = [sys.executable, "-W", "ignore", "-c", TRACED, str(checkpoints["llama"])]
    done = subprocess.run([*command, str(tmp_path / "rows.jsonl"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "10"  # every kill met a training that ran
    for name in ("checkpoints/state", "checkpoints/step-150/adapter_model", "student/adapter_model"):
        one, two = (load_file(tmp_path / which / f"{name}.safetensors") for which in ("killed", "whole"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    killed, whole = (TraceParts(tmp_path / name / "trace") for name in ("killed", "whole"))
    assert len(killed) == 200
    for part, other in zip(killed, whole, strict=True):
        assert torch.equal(part.pull, other.pull)
        assert torch.equal(part.norm, other.norm)
    assert not list((tmp_path / "killed").rglob("*.partial"))
