"""Grids of students: whatever happens to one, the others' records arrive, in processes and in Ray alike."""

import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from steerlens.experiments.argument.config import ArgumentConfig
from steerlens.experiments.cells import Cell
from steerlens.experiments.config import DataConfig, Workers
from steerlens.experiments.jobs import run_jobs
from steerlens.experiments.run import Run
from steerlens.experiments.stages import claim_directory
from steerlens.files import read_json, write_json
from steerlens.students.config import TrainConfig

BACKENDS = [
    None,
    pytest.param("local", marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")),
]


def cell(directory: Path, name: str) -> Cell:
    nowhere = Path("nowhere")
    return Cell(name, name, "base", "teacher", nowhere, nowhere, nowhere, "owl", TrainConfig(), directory / name)


def train(one: Cell) -> None:
    """Leaves a line for every attempt; what happens then is in the cell's name."""
    one.directory.mkdir(parents=True, exist_ok=True)
    with (one.directory / "attempts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if one.name == "wrong":
        raise ValueError("learning_rate=-1 is not allowed.")
    if one.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    while one.name == "killed" and len(attempts(one)) == 1:
        time.sleep(0.01)
    write_json(one.record_path, {"name": one.name, "path": str(Path("relative").absolute())})


def attempts(one: Cell) -> list[int]:
    path = one.directory / "attempts"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_when_it_runs(one: Cell) -> None:
    while not attempts(one):
        time.sleep(0.01)
    os.kill(attempts(one)[0], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("ray", BACKENDS)
def test_a_killed_worker_a_failed_cell_and_one_that_always_dies_take_no_other_record_along(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [cell(Path("run"), name) for name in ("killed", "wrong", "deadly", *"abcd")]
    killer = threading.Thread(target=kill_when_it_runs, args=cells[:1], daemon=True)
    killer.start()
    with pytest.raises(RuntimeError) as raised:
        run_jobs(cells, train, Workers(workers=2, ray=ray))
    killer.join()
    for one in cells:
        if one.name not in ("wrong", "deadly"):
            assert read_json(one.record_path) == {"name": one.name, "path": str(tmp_path / "relative")}
        assert len(attempts(one)) == (2 if one.name in ("killed", "deadly") else 1)
    assert "wrong: ValueError: learning_rate=-1 is not allowed." in str(raised.value)
    assert "deadly: WorkerDied: its process died twice" in str(raised.value)
    assert str(raised.value).count("\n") == 2

    for name in ("wrong", "deadly"):
        write_json(cell(Path("run"), name).record_path, {"name": name})
    records = run_jobs(cells, train, Workers(workers=2))
    assert [record["name"] for record in records] == [one.name for one in cells]
    assert len(attempts(cells[-1])) == 1, "what has a record is not trained again"


def test_ray_that_is_missing_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"--ray local needs Ray.*steerlens\[ray\]"):
        run_jobs([cell(tmp_path, "a")], train, Workers(ray="local"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("nowhere", ValueError, "--ray nowhere is no address. Give local, auto, HOST:PORT"),
        ("127.0.0.1:1", ConnectionError, "No Ray cluster answers at 127.0.0.1:1 .*ray start --head"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_to_be_missing_at_once(address, error, message, tmp_path):
    with pytest.raises(error, match=message):
        run_jobs([cell(tmp_path, "a")], train, Workers(ray=address))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus_per_student": 1.0}, "gpus_per_student=1 are kept free by Ray alone.*--ray local"),
        ({"ray": "local", "cpus_per_student": 0.0}, "needs more than 0 CPUs"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_impossible_workers_are_refused_with_a_reason(given, message):
    with pytest.raises(ValueError, match=message):
        ArgumentConfig(**given)


def test_a_run_goes_on_in_other_places_but_not_with_another_configuration(tmp_path):
    claim_directory(Run(DataConfig(), tmp_path))
    claim_directory(Run(DataConfig(workers=3, ray="local", cpus_per_student=2, gpus_per_student=0.5), tmp_path))
    with pytest.raises(ValueError, match=r"another configuration \(other: n_prompts\)"):
        claim_directory(Run(DataConfig(ray="local", n_prompts=1), tmp_path))
