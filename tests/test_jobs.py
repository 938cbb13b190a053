"""Many jobs at a time: whatever happens to one, the others' records arrive, in processes and in Ray alike."""

import importlib.util
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from steerlens.jobs import Workers, run_jobs
from steerlens.records import load_record, save_record

BACKENDS = [
    None,
    pytest.param("local", marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")),
]


OPEN_FILES_OF_RAY = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@dataclass(frozen=True)
class Done:
    name: str
    path: str = ""


@dataclass(frozen=True)
class Errand:
    """Leaves a line for every attempt; what happens then is in its name."""

    directory: Path
    name: str
    record_kind = Done

    @property
    def record_path(self) -> Path:
        return self.directory / self.name / "record.json"

    @property
    def attempts(self) -> list[int]:
        path = self.directory / self.name / "attempts"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self) -> Done:
        self.record_path.parent.mkdir(parents=True, exist_ok=True)
        with (self.record_path.parent / "attempts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.name == "wrong":
            raise ValueError("learning_rate=-1 is not allowed.")
        if self.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.name == "killed" and len(self.attempts) == 1:
            time.sleep(0.01)
        while self.name.startswith("held") and not (self.directory / "go on").exists():
            time.sleep(0.01)
        return Done(self.name, str(Path("relative").absolute()))


def errands(directory: Path, *names: str) -> dict[str, Errand]:
    return {name: Errand(directory, name) for name in names}


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def kill_when_it_runs(one: Errand) -> None:
    while not one.attempts:
        time.sleep(0.01)
    os.kill(one.attempts[0], signal.SIGKILL)


@pytest.mark.slow
@OPEN_FILES_OF_RAY
@pytest.mark.parametrize("ray", BACKENDS)
def test_a_killed_worker_a_failed_job_and_one_that_always_dies_take_no_other_record_along(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = errands(Path("run"), "killed", "wrong", "deadly", *"abcd")
    killer = threading.Thread(target=kill_when_it_runs, args=[jobs["killed"]], daemon=True)
    killer.start()
    with pytest.raises(RuntimeError) as raised:
        run_jobs(jobs, Workers(workers=2, ray=ray))
    killer.join()
    assert "wrong: ValueError: learning_rate=-1 is not allowed." in str(raised.value)
    assert "deadly: WorkerDied: its process died twice" in str(raised.value)
    assert str(raised.value).count("\n") == 2
    for name, one in jobs.items():
        assert len(one.attempts) == (2 if name in ("killed", "deadly") else 1)

    for name in ("wrong", "deadly"):
        save_record(jobs[name].record_path, Done(name))
    found = run_jobs(jobs, Workers(workers=2))
    assert [done.name for done in found.values()] == list(jobs)
    assert found["a"].path == str(tmp_path / "relative"), "a relative path means the same in a worker"
    assert len(jobs["d"].attempts) == 1, "what has a record is not done again"


@pytest.fixture
def two_nodes(monkeypatch):
    """A Ray cluster of two nodes of one processor each, on this machine: its address, and what kills the second node."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    cluster.shutdown()


@pytest.mark.slow
@OPEN_FILES_OF_RAY
def test_a_node_that_dies_takes_no_record_along_and_its_job_alone_is_done_again(two_nodes, tmp_path):
    address, kill_second = two_nodes
    jobs = errands(tmp_path, "held-1", "held-2", *"abcdef")  # one of the first two on each node

    def kill_in_the_middle() -> None:
        while not all(jobs[name].attempts for name in ("held-1", "held-2")):
            time.sleep(0.01)
        kill_second()
        while all(is_running(jobs[name].attempts[0]) for name in ("held-1", "held-2")):
            time.sleep(0.01)  # a worker outlives its node for a moment, and would end its job
        (tmp_path / "go on").touch()

    killer = threading.Thread(target=kill_in_the_middle, daemon=True)
    killer.start()
    found = run_jobs(jobs, Workers(ray=address))
    killer.join()
    attempts = {name: len(one.attempts) for name, one in jobs.items()}
    assert sorted([attempts.pop("held-1"), attempts.pop("held-2")]) == [1, 2]
    assert set(attempts.values()) == {1}
    assert [done.name for done in found.values()] == list(jobs)
    written = {name: one.record_path.read_text() for name, one in jobs.items()}
    assert [load_record(one.record_path, Done).name for one in jobs.values()] == list(jobs), "each file is whole"
    assert run_jobs(jobs, Workers(ray=address)) == found, "a run that goes on does nothing again"
    assert {name: one.record_path.read_text() for name, one in jobs.items()} == written
    assert sum(len(one.attempts) for one in jobs.values()) == len(jobs) + 1


def test_ray_that_is_missing_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"--ray local needs Ray.*steerlens\[ray\]"):
        run_jobs(errands(tmp_path, "a"), Workers(ray="local"))


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
        run_jobs(errands(tmp_path, "a"), Workers(ray=address))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus_per_job": 1.0}, "gpus_per_job=1 are kept free by Ray alone.*--ray local"),
        ({"ray": "local", "cpus_per_job": 0.0}, "needs more than 0 CPUs"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_impossible_workers_are_refused_with_a_reason(given, message):
    with pytest.raises(ValueError, match=message):
        Workers(**given)
