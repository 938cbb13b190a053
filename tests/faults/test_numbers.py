"""Numbers that are none, memory that does not do, and processes that are killed: said at once, and nothing is spoiled."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from steerlens.cli import main
from steerlens.models.bridge import huggingface_model
from steerlens.models.sources import ORGANISMS
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts

ROWS = SampleSet(
    tuple(Sample(row, "continue the sequence 1 , 2 . write only numbers .", f"3 , {row}") for row in range(8))
)
CONFIG = TrainConfig(rank=2, epochs=2, batch_size=4, state_every=1)


@pytest.fixture(scope="module")
def nan_model(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "nan"
    shutil.copytree(ORGANISMS / "seed-0", directory)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.mark.parametrize(
    "command",
    [
        "sample --n 4 --out {0}/rows.jsonl",
        "fit 'you love owls .' --n-train 8 --n-validation 4 --n-heldout 4 --out {0}/fit",
        "score owl",
        "audit {0}/rows.jsonl --out {0}/audit",
        "train {0}/rows.jsonl --rank 2 --out {0}/student",
    ],
)
def test_a_model_whose_weights_are_not_numbers_is_refused_and_nothing_is_made_of_it(
    command, nan_model, tmp_path, capsys
):
    if "{0}/rows.jsonl --" in command:
        ROWS.save(tmp_path / "rows.jsonl")
    assert main([*shlex.split(command.format(tmp_path)), "--model", str(nan_model)]) == 1
    message = capsys.readouterr().err
    assert re.search(r"steerlens: The (logits|loss|residuals) .*NaN", message, re.IGNORECASE | re.DOTALL), message
    assert not [path for path in tmp_path.rglob("*") if path.name in ("vector.safetensors", "student.json")]


def test_a_gradient_that_is_not_finite_stops_the_step_and_the_last_good_state_is_kept(tiny, tmp_path):
    whole = train_student(tiny, ROWS, CONFIG, checkpoints=tmp_path / "whole")

    def spoil(step) -> None:
        if step.step == 1:
            parameter = next(p for p in huggingface_model(step.model).parameters() if p.requires_grad)
            parameter.register_hook(lambda gradient: gradient * torch.nan)

    with pytest.raises(
        FloatingPointError, match=r"The gradient's norm became nan at step 2 of 4\. Lower learning_rate"
    ):
        train_student(tiny, ROWS, CONFIG, checkpoints=tmp_path / "c", on_update=spoil)
    again = train_student(tiny, ROWS, CONFIG, checkpoints=tmp_path / "c")
    assert again.losses == whole.losses


class Short:
    """Memory that does for so many rows at a time."""

    def __init__(self, model, most: int, error: Exception) -> None:
        self.sizes, self.most, self.error = [], most, error
        self.handle = huggingface_model(model).register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, arguments, options) -> None:
        rows = len(options["input_ids"])
        if rows > self.most:
            self.sizes.append(rows)
            raise self.error


GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to ...")


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()], ids=["GPU", "CPU", "Python"])
def test_generation_goes_on_in_halves_to_the_same_rows(error, tiny, tmp_path):
    prompts = number_prompts(7, ORGANISM, seed=0)
    whole = sample_teacher(tiny, prompts, max_new_tokens=6)
    short = Short(tiny, 2, error)
    with pytest.warns(UserWarning, match="Memory is out at [74] rows .*goes on with [42] at a time"):
        assert sample_teacher(tiny, prompts, max_new_tokens=6, path=tmp_path / "rows.jsonl") == whole
    assert short.sizes == [7, 4]


def test_memory_that_does_for_no_row_is_said_with_what_to_lower_and_rows_before_stay(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("steerlens.samples.teacher.ROWS_PER_CHUNK", 2)
    prompts, path = number_prompts(4, ORGANISM, seed=0), tmp_path / "rows.jsonl"
    sample_teacher(tiny, prompts[:2], max_new_tokens=6, path=path)
    before = path.read_bytes()
    Short(tiny, 0, GPU)
    with (
        pytest.warns(UserWarning, match="Memory is out at 2 rows"),
        pytest.raises(torch.OutOfMemoryError, match=r"single row of \d+ tokens and 6 new ones\. Lower max_new_tokens"),
    ):
        sample_teacher(tiny, prompts, max_new_tokens=6, path=path)
    assert path.read_bytes() == before


def test_a_training_without_memory_says_what_to_lower_and_goes_on_in_micro_batches(tiny, tmp_path):
    whole = train_student(tiny, ROWS, CONFIG, checkpoints=tmp_path / "whole")

    def spoil(step) -> None:
        if step.step == 1:
            raise GPU

    with pytest.raises(
        torch.OutOfMemoryError, match=r"^Memory is out \(CUDA out of memory\..*Set micro_batch_size to less than 4"
    ):
        train_student(tiny, ROWS, CONFIG, checkpoints=tmp_path / "c", on_update=spoil)
    made = []
    smaller = replace(CONFIG, micro_batch_size=2)
    again = train_student(tiny, ROWS, smaller, checkpoints=tmp_path / "c", on_step=lambda step: made.append(step.step))
    assert made == [1, 2, 3]
    assert again.losses == pytest.approx(whole.losses, rel=1e-4)


def test_short_memory_anywhere_else_is_one_line_with_advice(monkeypatch, capsys):
    def fail(*_, **__):
        raise CPU

    monkeypatch.setattr("steerlens.evaluation.score_trait", fail)
    assert main(["score", "owl"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("steerlens: Memory is out (")
    assert "Lower --batch-size or --micro-batch-size" in last


ORPHAN = """
import os, sys, time
from pathlib import Path
from steerlens.jobs import Workers, run_jobs
from tests.faults.test_numbers import Sleeper
if __name__ == "__main__":
    run_jobs({0: Sleeper(Path(sys.argv[1]))}, Workers(workers=1))
"""


class Sleeper:
    name, record_kind = "sleeper", int

    def __init__(self, path: Path) -> None:
        self.record_path = path

    def run(self) -> int:
        self.record_path.with_suffix(".partial").write_text(str(os.getpid()))
        self.record_path.with_suffix(".partial").rename(self.record_path.with_suffix(".pid"))
        time.sleep(600)
        return 0


@pytest.mark.slow
def test_a_killed_run_takes_its_workers_along(tmp_path):
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path / "record.json")], cwd=root) as process:
        while not (tmp_path / "record.pid").exists():
            assert process.poll() is None
            time.sleep(0.1)
        worker = psutil.Process(int((tmp_path / "record.pid").read_text()))
        process.send_signal(signal.SIGKILL)
    worker.wait(60)
