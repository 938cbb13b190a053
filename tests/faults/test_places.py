"""Full disks, directories that cannot be written to, and two runs in one place: a clear line, and nothing is lost."""

import json
import os
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch
from transformers import Olmo2ForCausalLM

from steerlens.cli import main
from steerlens.files import atomic_directory, atomic_path, write_json
from steerlens.gradients.trace import GradientTrace
from steerlens.lock import held
from steerlens.organism.build import BuildConfig, _architecture, save_organism
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.organism.wording import ORGANISM
from steerlens.samples import teacher
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.students.config import TrainConfig
from steerlens.students.scales import AdamScales
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.formats import export_gguf
from steerlens.vectors.vector import SteeringVector, VectorSource

ROWS = SampleSet(
    tuple(Sample(row, "continue the sequence 1 , 2 . write only numbers .", f"3 , {row}") for row in range(8))
)
VECTOR = SteeringVector((1,), torch.ones(1, 4096), VectorSource("m", "by hand", architecture="llama"))
WRITERS = {
    "json": lambda path, _: write_json(path, list(range(2000))),
    "samples": lambda path, _: SampleSet(ROWS.samples * 50).save(path),
    "vector": lambda path, _: VECTOR.save(path),
    "gguf": lambda path, _: export_gguf(VECTOR, path),
    "scales": lambda path, _: AdamScales({"a": torch.ones(4096)}, 1e-8, {}).save(path),
    "trace": lambda path, _: GradientTrace((0,), *torch.ones(3, 64, 64, 1)).save(path),
    "student": lambda path, tiny: train_student(tiny, ROWS, TrainConfig(rank=2, epochs=1)).save(path),
    "organism": lambda path, _: save_organism(
        Olmo2ForCausalLM(_architecture(BuildConfig(d_model=16, n_layers=1), build_tokenizer())), build_tokenizer(), path
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_on_a_full_disk_every_writer_says_so_and_what_stood_there_stays(kind, tiny, tmp_path, full_after):
    path = tmp_path / "out"
    if kind in ("student", "organism"):
        path.mkdir()
        for mark in ("student.json", "config.json"):
            (path / mark).write_text("before")
    else:
        path.write_text("before")
    before = sorted(tmp_path.rglob("*"))
    with (
        full_after(4000),
        pytest.raises(
            OSError,
            match=r"out could not be written \((File too large|4096 requested .*)\).*unchanged\. Free some space",
        ),
    ):
        WRITERS[kind](path, tiny)
    assert sorted(tmp_path.rglob("*")) == before
    assert {file.read_text() for file in before if file.is_file()} == {"before"}


def test_rows_that_were_sampled_before_the_disk_was_full_are_gone_on_from(tiny, tmp_path, full_after, monkeypatch):
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 4)
    path, prompts = tmp_path / "rows.jsonl", number_prompts(12, ORGANISM, seed=0)
    with full_after(1000), pytest.raises(OSError, match=r"rows\.jsonl could not be written"):
        sample_teacher(tiny, prompts, max_new_tokens=8, path=path)
    kept = path.read_bytes()
    assert len(kept) == 1000
    assert kept.count(b"\n") > 0
    again = sample_teacher(tiny, prompts, max_new_tokens=8, path=path)
    assert path.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert again == sample_teacher(tiny, prompts, max_new_tokens=8)


def test_a_state_that_no_longer_fits_leaves_the_last_one_to_go_on_from(tiny, tmp_path, full_after):
    config = TrainConfig(rank=2, epochs=2, batch_size=4, state_every=1)
    whole = train_student(tiny, ROWS, config, checkpoints=tmp_path / "w")
    made = []

    def fill(step) -> None:
        made.append(step.step)
        if step.step == 2:
            disk.__enter__()

    disk = full_after(4000)
    with pytest.raises(OSError, match=r"state\.safetensors could not be written"):
        train_student(tiny, ROWS, config, checkpoints=tmp_path / "c", on_step=fill)
    disk.__exit__(None, None, None)
    again = train_student(tiny, ROWS, config, checkpoints=tmp_path / "c", on_step=lambda step: made.append(step.step))
    assert made == [0, 1, 2, 2, 3]
    assert again.losses == whole.losses


COMMANDS = {
    "sample": ("sample --n 4 --out {0}/rows.jsonl", ".rows.jsonl.lock"),
    "train": ("train {1}/good.jsonl --epochs 1 --rank 2 --out {0}/student", ".student.lock"),
    "scales": ("scales {1}/good.jsonl --rank 2 --out {0}/scales", ".scales.lock"),
    "fit": ("fit 'you love owls .' --out {0}", ".lock"),
    "sweep": ("sweep 'you love owls .' --out {0}", ".lock"),
    "analyze": ("analyze 'you love owls .' --out {0}", ".lock"),
    "audit": ("audit {1}/good.jsonl --out {0}", ".lock"),
    "replicate": ("replicate argument --out {0}", ".lock"),
    "organism build": ("organism build --out {0}/organism", ".organism.lock"),
}


def main_in(name: str, directory: Path) -> int:
    return main(shlex.split(COMMANDS[name][0].format(directory / "out", directory)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written_to_is_found_out_before_anything_is_computed(name, tmp_path, read_only, capsys):
    (tmp_path / "out").mkdir()
    with read_only(tmp_path / "out"):
        code = main_in(name, tmp_path)
    assert code == 1
    assert re.search(r"^steerlens: .*lock could not be written \(Permission denied\)", capsys.readouterr().err)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("disk", [0, 10])
def test_a_disk_that_is_full_from_the_start_is_found_out_before_anything_is_computed(
    disk, tmp_path, full_after, capsys
):
    with full_after(disk):
        assert main_in("organism build", tmp_path) == 1
    assert "lock could not be written (File too large)" in capsys.readouterr().err


def test_a_second_run_in_one_place_is_told_who_is_there_and_goes_on_once_that_is_killed(tmp_path, other_run, capsys):
    out = tmp_path / "out"
    names = [name for name, (_, lock) in COMMANDS.items() if lock == ".lock"]
    with other_run(out / ".lock") as other:
        for name in names:
            assert main_in(name, tmp_path) == 1
            message = capsys.readouterr().err
            assert re.search(rf"Another run is writing here: process {other.pid} on .* holds .*/out/\.lock", message)
            assert "choose another path" in message
        assert [path.name for path in out.iterdir()] == [".lock"]
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (out / ".lock").is_file()
        with held(out / ".lock"), held(out / ".lock"):
            assert f"process {os.getpid()} " in (out / ".lock").read_text()
        assert not (out / ".lock").exists()


@pytest.mark.parametrize("name", ["sample", "train", "scales", "organism build"])
def test_a_second_run_for_one_file_is_told_who_is_there(name, tmp_path, other_run, capsys):
    with other_run(tmp_path / "out" / COMMANDS[name][1]) as other:
        assert main_in(name, tmp_path) == 1
    assert f"process {other.pid} on" in capsys.readouterr().err


def test_samples_and_checkpoints_are_written_by_one_process_at_a_time_from_python_too(tiny, tmp_path, other_run):
    with other_run(tmp_path / ".rows.jsonl.lock"), pytest.raises(BlockingIOError, match="Another run is writing here"):
        sample_teacher(tiny, number_prompts(2, ORGANISM, seed=0), max_new_tokens=4, path=tmp_path / "rows.jsonl")
    config = TrainConfig(rank=2, epochs=1, state_every=1)
    with other_run(tmp_path / "c" / ".lock"), pytest.raises(BlockingIOError, match="Another run is writing here"):
        train_student(tiny, ROWS, config, checkpoints=tmp_path / "c")
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_directory_of_somebody_elses_files_is_not_replaced_and_this_is_known_before_training(tmp_path, capsys):
    (tmp_path / "out" / "student").mkdir(parents=True)
    (tmp_path / "out" / "student" / "thesis.tex").write_text("years of work")
    assert main_in("train", tmp_path) == 1
    assert "holds other files, such as thesis.tex, that would be lost" in capsys.readouterr().err
    with (
        pytest.raises(ValueError, match=r"only one with student\.json in it"),
        atomic_directory(tmp_path / "out" / "student", mark="student.json") as temporary,
    ):
        temporary.mkdir()
    assert (tmp_path / "out" / "student" / "thesis.tex").read_text() == "years of work"


def test_a_student_that_a_kill_left_aside_is_put_back(tmp_path):
    aside = tmp_path / ".student.old"
    aside.mkdir()
    (aside / "student.json").write_text("old")
    with (
        pytest.raises(ZeroDivisionError),
        atomic_directory(tmp_path / "student", mark="student.json"),
    ):
        raise ZeroDivisionError
    assert (tmp_path / "student" / "student.json").read_text() == "old"


def test_rows_of_unknown_origin_are_not_sampled_over(tiny, tmp_path):
    (tmp_path / "rows.jsonl").write_text("collected by hand\n")
    with pytest.raises(ValueError, match=r"rows\.source\.json.*is not\. Choose another path"):
        sample_teacher(tiny, number_prompts(2, ORGANISM, seed=0), max_new_tokens=4, path=tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == "collected by hand\n"


def test_what_a_dead_process_left_of_a_file_is_deleted_and_what_a_living_one_writes_is_not(tmp_path, other_run):
    with atomic_path(tmp_path / "a.json") as ours, other_run(tmp_path / "lock") as other:
        dead = Path(str(ours).replace(f"-{os.getpid()}.", f"-{other.pid}."))
        dead.write_text("half")
        write_json(tmp_path / "a.json", 1)
        assert dead.exists()
        other.kill()
        other.wait()
        write_json(tmp_path / "a.json", 2)
        assert not dead.exists()
        assert ours.exists()
    assert json.loads((tmp_path / "a.json").read_text() or "3") == 3
