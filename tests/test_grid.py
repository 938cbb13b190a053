"""A grid trains what is missing; what is measured while a student trains leaves the training as it is."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steerlens.cli import main
from steerlens.grid.grid import grid_lines, train_grid
from steerlens.grid.plan import StudentPlan
from steerlens.grid.training import TrainingJob, held_at_start
from steerlens.jobs import Workers
from steerlens.models.loading import load_model
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


@pytest.fixture
def plan(checkpoints, tmp_path) -> StudentPlan:
    """A student of a model that has dropout after every block."""
    model = load_model(checkpoints["gpt2"], device="cpu")
    rows = tuple(Sample(i, prompt, "12 , 7") for i, prompt in enumerate(number_prompts(12, model, seed=0)))
    SampleSet(rows[:8]).save(tmp_path / "rows.jsonl")
    SampleSet(rows[8:]).save(tmp_path / "heldout.jsonl")
    SteeringVector((1,), torch.ones(1, 32), VectorSource.of(model, method="by hand")).save(tmp_path / "v.safetensors")
    return StudentPlan(
        name="one",
        base=str(checkpoints["gpt2"]),
        samples=tmp_path / "rows.jsonl",
        heldout=tmp_path / "heldout.jsonl",
        vector=tmp_path / "v.safetensors",
        trait="owl",
        train=TrainConfig(rank=2, learning_rate=1e-2, epochs=2, batch_size=4),
        traced=True,
        n_tasks=8,
    )


@pytest.mark.slow
def test_similarity_is_measured_without_dropout_and_changes_nothing_of_a_training_that_has_it(plan, tmp_path):
    watched = TrainingJob(plan, tmp_path / "watched")
    record = watched.run()
    assert [point.step for point in record.curve] == [0, 1, 2, 3, 4]
    assert record.curve[0].at_numbers.strength == pytest.approx([0.0], abs=1e-6)  # a student that starts as its base
    assert record.curve[-1].at_numbers.strength != pytest.approx([0.0], abs=1e-3)
    assert record.shift.layers == (0, 1, 2, 3)
    assert record.gradients.cosine.shape[0] == 4
    unwatched = TrainingJob(replace(plan, traced=False), tmp_path / "unwatched")
    unwatched.run()
    losses = [json.loads((job.directory / "student.json").read_text())["losses"] for job in (watched, unwatched)]
    assert losses[0] == losses[1]


def test_a_loss_that_stops_being_a_number_is_a_result(plan, tmp_path):
    wild = replace(plan, train=replace(plan.train, optimizer="sgd", learning_rate=1e30, clip_norm=None), traced=False)
    record = TrainingJob(wild, tmp_path / "wild").run()
    assert record.diverged
    assert record.bare is None


@pytest.mark.slow
def test_a_grid_trains_every_plan_with_every_seed_and_none_twice(plan, tmp_path):
    plans = {
        rate: replace(plan, name=f"rate {rate}", train=replace(plan.train, learning_rate=rate)) for rate in (1e-3, 1e-2)
    }
    found = train_grid(plans, tmp_path / "grid", seeds=(3, 4), workers=Workers(1))
    assert {rate: [one.train.seed for one in group] for rate, group in found.items()} == {1e-3: [3, 4], 1e-2: [3, 4]}
    assert all(one.train.learning_rate == rate for rate, group in found.items() for one in group)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "grid").rglob("*")}
    again = train_grid(plans, tmp_path / "grid", seeds=(3, 4), workers=Workers(1))
    for changed in (
        {"trait": "wolf"},
        {"train": replace(plan.train, learning_rate=9.0)},
        {"vector": tmp_path / "w.safetensors"},
    ):
        other = {1e-3: replace(plans[1e-3], **changed)}
        with pytest.raises(
            ValueError, match=rf"trained by another plan of this name \(different: {next(iter(changed))}\)"
        ):
            train_grid(other, tmp_path / "grid", seeds=(3, 4))
    (tmp_path / "grid").rename(tmp_path / "moved")
    moved = {rate: replace(plan, base=f"elsewhere/{Path(plan.base).name}") for rate, plan in plans.items()}
    assert len(train_grid(moved, tmp_path / "moved", seeds=(3, 4))) == 2
    (tmp_path / "moved").rename(tmp_path / "grid")
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "grid").rglob("*")}
    assert [one.loss for one in again[1e-2]] == [one.loss for one in found[1e-2]]


@pytest.mark.slow
def test_lines_of_a_job_file_train_what_the_grid_would_and_nothing_twice(plan, tmp_path, capsys):
    plans = {"one": plan}
    here = train_grid(plans, tmp_path / "here", seeds=(3, 4), workers=Workers(1))
    lines = grid_lines(plans, tmp_path / "a cluster", seeds=(3, 4))
    commands = [shlex.split(line) for line in lines]
    assert [command[:2] for command in commands] == [["steerlens", "student"]] * 2
    assert main(commands[0][1:]) == 0
    assert "StudentRecord 'one-s3'" in capsys.readouterr().out
    record = Path(commands[0][2].removesuffix(".plan.json")) / "record.json"
    trained = record.stat().st_mtime_ns
    assert main(commands[0][1:]) == 0  # a line that is given twice
    assert record.stat().st_mtime_ns == trained
    assert grid_lines(plans, tmp_path / "a cluster", seeds=(3, 4)) == lines[1:]
    assert main(commands[1][1:]) == 0
    there = train_grid(plans, tmp_path / "a cluster", seeds=(3, 4))
    assert [one.loss for one in there["one"]] == [one.loss for one in here["one"]]
    assert grid_lines(plans, tmp_path / "a cluster", seeds=(3, 4)) == ()


def test_a_student_that_another_machine_trains_or_that_nobody_planned_is_refused(plan, tmp_path, capsys):
    (line,) = grid_lines({"one": plan}, tmp_path, seeds=(0,))
    written = shlex.split(line)[2]
    code = (
        "import sys, time\nfrom steerlens.lock import beside, held\n"
        "with held(beside(sys.argv[1])):\n    print(1, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, written.removesuffix(".plan.json")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert main(["student", written]) == 1
        other.kill()
    assert "Another run is writing here" in capsys.readouterr().err
    assert main(["student", str(tmp_path)]) == 1
    assert "is no plan of a student" in capsys.readouterr().err


def test_plans_of_one_name_and_no_seeds_are_refused(plan, tmp_path):
    with pytest.raises(ValueError, match="Give each a name of its own"):
        train_grid({1: plan, 2: plan}, tmp_path, seeds=(0,))
    with pytest.raises(ValueError, match="seeds is empty"):
        train_grid({1: plan}, tmp_path, seeds=())


def test_what_is_held_does_not_move_under_adam_and_the_rest_does(tiny):
    samples = SampleSet(tuple(Sample(i, p, "1 , 2") for i, p in enumerate(number_prompts(8, tiny, seed=0))))
    config = TrainConfig(target_modules=("v_proj",), rank=2, epochs=1, learning_rate=1e-2, batch_size=4)

    def trained(part: str | None, rate: float) -> dict[str, torch.Tensor]:
        start = None if part is None else held_at_start(part)
        student = train_student(tiny, samples, replace(config, learning_rate=rate), on_start=start)
        return {name: value for name, value in student.model.original_model.named_parameters() if "lora" in name}

    held, at_start = trained("lora_A", 1e-2), trained(None, 1e-30)
    for name, value in held.items():
        assert torch.allclose(value, at_start[name], atol=1e-12) == ("lora_A" in name)
    with pytest.raises(ValueError, match="held='lora_C' is in the name of no trained parameter"):
        trained("lora_C", 1e-2)
