"""Many jobs, such as students to train, at a time: in processes of this machine, or through Ray.

A job leaves a record when it is done. One that has a record is not done again, so that a run that was interrupted goes on.
"""

import contextlib
import functools
import importlib
import os
import socket
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from steerlens.arguments import checked
from steerlens.checks import a_text, number, whole
from steerlens.models.four_bits import silence_bitsandbytes
from steerlens.records import load_record, save_record

DIED = "its process died twice. Is memory short? Do fewer at a time (--workers)."

R = TypeVar("R", covariant=True)
K = TypeVar("K", bound=Hashable)


@runtime_checkable
class Job(Protocol[R]):
    """Work that ends with a record. It is sent to another process, so it holds names and paths, not models."""

    @property
    def name(self) -> str:
        """What the job is called where it fails."""
        ...

    @property
    def record_path(self) -> Path:
        """Where its record is written, last of all: the job is done when this file exists."""
        ...

    @property
    def record_kind(self) -> type[R]:
        """The dataclass of its record."""
        ...

    def run(self) -> R:
        """Do the work."""
        ...


Elsewhere = Callable[[Callable[[Any], None], Any], None]
"""Calls a function with a job in another process, and waits for it."""


@dataclass(frozen=True)
class Workers:
    """Where jobs are done, and how many at a time. What they find does not depend on it.

    Args:
        workers: jobs at a time. 0 takes one for each core, or one on a GPU, or as many as fit into Ray.
        ray: None uses processes of this machine, "local" starts Ray on it, and an address joins that Ray cluster.
        cpus_per_job: cores that Ray keeps free for each.
        gpus_per_job: GPUs that Ray keeps free for each.

    Raises:
        ValueError: a number is out of range, or something is asked of Ray and `ray` is None.
    """

    workers: int = 0
    ray: str | None = None
    cpus_per_job: float = 1.0
    gpus_per_job: float = 0.0

    def __post_init__(self) -> None:
        whole()(self.workers, "workers")
        number()(self.cpus_per_job, "cpus_per_job")
        number()(self.gpus_per_job, "gpus_per_job")
        if self.ray is not None:
            a_text(self.ray, "ray")
        if self.ray is None and (self.cpus_per_job, self.gpus_per_job) != (1.0, 0.0):
            raise ValueError(
                f"cpus_per_job={self.cpus_per_job:g} and gpus_per_job={self.gpus_per_job:g} are kept free by Ray alone, but "
                "ray is not given. Add --ray local, or a cluster's address."
            )
        if self.workers < 0 or self.cpus_per_job <= 0 or self.gpus_per_job < 0:
            raise ValueError(
                f"workers={self.workers}, cpus_per_job={self.cpus_per_job:g} and gpus_per_job={self.gpus_per_job:g} are not "
                "all allowed. A job needs more than 0 CPUs; workers and GPUs are 0 or more."
            )


class WorkerDied(RuntimeError):
    """A job's process ended without an answer: killed, or out of memory."""


@checked
def run_jobs(jobs: Mapping[K, Job[R]], workers: Workers, *, what: str = "jobs") -> dict[K, R]:
    """Do every job that has no record yet, and return all records by the keys of the jobs.

    A job whose process dies is tried once more. Each record is written when its job ends.

    Args:
        what: what the jobs are called beside the progress bar, in the plural.

    Raises:
        ModuleNotFoundError: Ray is asked for and not installed.
        ConnectionError: there is no Ray cluster at the address.
        RuntimeError: some jobs failed; the others' records are on disk all the same.
    """
    missing = [job for job in jobs.values() if not job.record_path.is_file()]
    progress = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=what, unit=what.removesuffix("s"))
    failures = []
    with progress, ThreadPoolExecutor(_at_a_time(workers, len(missing))) as threads, _backend(workers) as elsewhere:
        running = {threads.submit(_do_twice, elsewhere, job): job for job in missing}
        try:
            for future in as_completed(running):
                if (error := future.exception()) is not None:
                    failures.append(f"{running[future].name}: {type(error).__name__}: {error}")
                progress.update()
        except KeyboardInterrupt:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise RuntimeError(f"Some {what} failed; run again to retry them alone.\n" + "\n".join(failures))
    return {key: load_record(job.record_path, job.record_kind) for key, job in jobs.items()}


def run_job(job: Job[Any]) -> None:
    """Do a job in this process, and write its record."""
    save_record(job.record_path, job.run())


def _at_a_time(workers: Workers, n_jobs: int) -> int:
    """Threads that wait for a job each; Ray itself holds back what does not fit."""
    here = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    most = n_jobs if workers.ray else here
    return max(1, min(n_jobs, workers.workers or most))


def _do_twice(elsewhere: Elsewhere, job: Job[Any]) -> None:
    """Do a job in another process, and once more if that process dies."""
    try:
        elsewhere(run_job, job)
    except WorkerDied:
        elsewhere(run_job, job)
    if not job.record_path.is_file():
        raise FileNotFoundError(
            f"done, but {job.record_path} is not to be seen here. All of Ray's machines need --out on shared storage."
        )


def _backend(workers: Workers) -> contextlib.AbstractContextManager[Elsewhere]:
    """What calls `do(job)` in another process, waits for it, and raises what it raises, or `WorkerDied`."""
    return _processes() if workers.ray is None else _ray(workers, workers.ray)


@contextlib.contextmanager
def _processes() -> Iterator[Elsewhere]:
    """Processes that are used again; each is a pool of its own, so that one that is killed takes no other along."""
    idle = SimpleQueue[ProcessPoolExecutor]()

    def call(do: Callable[[Any], None], job: Any) -> None:
        try:
            process = idle.get_nowait()
        except Empty:
            process = new_process()
        try:
            process.submit(do, job).result()
        except BrokenProcessPool as error:
            process = new_process()
            raise WorkerDied(DIED) from error
        finally:
            idle.put(process)

    with contextlib.ExitStack() as stack:

        def new_process() -> ProcessPoolExecutor:
            pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin_worker)
            return stack.enter_context(pool)

        yield call


@contextlib.contextmanager
def _ray(workers: Workers, address: str) -> Iterator[Elsewhere]:
    """Tasks of a Ray cluster: one that the caller has opened already, or else the one at `address` until the block ends."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"--ray {address} needs Ray. Install it: pip install 'steerlens[ray]'. Without --ray, jobs are done in processes "
            "of this machine."
        ) from error
    opened = not ray.is_initialized()
    if opened:
        _connect(ray, address)
    task = ray.remote(num_cpus=workers.cpus_per_job, num_gpus=workers.gpus_per_job, max_retries=0)(_in_directory)

    def call(do: Callable[[Any], None], job: Any) -> None:
        try:
            ray.get(task.remote(os.getcwd(), max(1, int(workers.cpus_per_job)), do, job))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as error:
            raise WorkerDied(DIED) from error

    try:
        _refuse_what_never_fits(ray, workers)
        yield call
    finally:
        if opened:
            ray.shutdown()


def _connect(ray: ModuleType, address: str) -> None:
    """Join a cluster, or start a small one with little shared memory; Ray's usage reports are off unless asked for."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        ray.init(
            "local",
            include_dashboard=False,
            object_store_memory=100_000_000,
            log_to_driver=False,
            logging_level="error",
        )
    else:
        _refuse_what_does_not_answer(address)
        ray.init(address, logging_level="warning")


def _refuse_what_does_not_answer(address: str) -> None:
    """Ray itself tries for minutes, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise ValueError(f"--ray {address} is no address. Give local, auto, HOST:PORT or ray://HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"No Ray cluster answers at {address} ({error}). Start one there with `ray start --head`, or give --ray local."
        ) from error


def _refuse_what_never_fits(ray: ModuleType, workers: Workers) -> None:
    """Ray would wait for ever for room that this machine never has. A cluster may grow, and says itself what it waits for."""
    there = ray.cluster_resources()
    cpus, gpus = (there.get(name, 0.0) for name in ("CPU", "GPU"))
    if workers.ray == "local" and (workers.cpus_per_job > cpus or workers.gpus_per_job > gpus):
        raise ValueError(
            f"A job that needs {workers.cpus_per_job:g} CPUs and {workers.gpus_per_job:g} GPUs never fits here: "
            f"Ray has {cpus:g} and {gpus:g}. Lower --cpus-per-job or --gpus-per-job."
        )


def _in_directory(directory: str, n_threads: int, do: Callable[[Any], None], job: Any) -> None:
    """In Ray: relative paths mean what they mean where the run was started."""
    os.chdir(directory)
    _quiet(n_threads)
    do(job)


def _begin_worker() -> None:
    """In a process of this machine: one thread, and an end with the run, even one that is killed and cannot say so.

    A worker that outlives its run would write into the directory of the next one.
    """
    _quiet(1)
    if (parent := parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@functools.cache
def _quiet(n_threads: int) -> None:
    """In a worker: the parent's progress bar is the only one, and workers do not fight for cores."""
    transformers_logging.disable_progress_bar()
    silence_bitsandbytes()
    tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # pyright: ignore[reportAttributeAccessIssue]
    torch.set_num_threads(n_threads)
