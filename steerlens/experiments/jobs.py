"""Many jobs, such as students, at a time: in local processes, or through Ray. Only how one is handed over differs."""

import contextlib
import functools
import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from steerlens.experiments.config import Workers
from steerlens.files import read_json
from steerlens.models.four_bits import silence_bitsandbytes

DIED = "its process died twice. Is memory short? Do fewer at a time (--workers)."


@runtime_checkable
class Job(Protocol):
    """Work that leaves a record."""

    @property
    def name(self) -> str:
        """Named where it fails."""
        ...

    @property
    def record_path(self) -> Path:
        """Written last: the job is done when it exists."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)
Elsewhere = Callable[[Callable[[Any], None], Any], None]
"""Calls a function with a job in another process, and waits for it."""


class WorkerDied(RuntimeError):
    """A job's process ended without an answer: killed, or out of memory."""


def run_jobs(
    jobs: Sequence[AnyJob], do: Callable[[AnyJob], None], workers: Workers, *, what: str = "students"
) -> list[dict[str, Any]]:
    """Do every job that has no record yet, and return all records in order.

    A job whose process dies is tried once more. Each record is written as its job ends, so that what is cut off goes on.

    Raises:
        ModuleNotFoundError: Ray is asked for and not installed.
        ConnectionError: there is no Ray cluster at the address.
        RuntimeError: some jobs failed; the others' records are on disk all the same.
    """
    missing = [job for job in jobs if not job.record_path.is_file()]
    progress = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=what, unit=what.removesuffix("s"))
    failures = []
    with progress, ThreadPoolExecutor(_at_a_time(workers, len(missing))) as threads, _backend(workers) as elsewhere:
        running = {threads.submit(_do_twice, elsewhere, do, job): job for job in missing}
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
    return [read_json(job.record_path) for job in jobs]


def _at_a_time(workers: Workers, n_jobs: int) -> int:
    """Threads that wait for a job each; Ray itself holds back what does not fit."""
    most = n_jobs if workers.ray else os.cpu_count() or 1
    return max(1, min(n_jobs, workers.workers or most))


def _do_twice(elsewhere: Elsewhere, do: Callable[[AnyJob], None], job: AnyJob) -> None:
    """Do a job in another process, and once more if that process dies."""
    try:
        elsewhere(do, job)
    except WorkerDied:
        elsewhere(do, job)
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
            f"--ray {address} needs Ray. Install it: pip install 'steerlens[ray]'. Without --ray, students are trained in "
            "local processes."
        ) from error
    opened = not ray.is_initialized()
    if opened:
        _connect(ray, address)
    task = ray.remote(num_cpus=workers.cpus_per_student, num_gpus=workers.gpus_per_student, max_retries=0)(
        _in_directory
    )

    def call(do: Callable[[Any], None], job: Any) -> None:
        try:
            ray.get(task.remote(os.getcwd(), max(1, int(workers.cpus_per_student)), do, job))
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
    """A student that no machine can hold would wait for ever; a cluster may grow, and says itself what it waits for."""
    there = ray.cluster_resources()
    cpus, gpus = (there.get(name, 0.0) for name in ("CPU", "GPU"))
    if workers.ray == "local" and (workers.cpus_per_student > cpus or workers.gpus_per_student > gpus):
        raise ValueError(
            f"A student that needs {workers.cpus_per_student:g} CPUs and {workers.gpus_per_student:g} GPUs never fits here: "
            f"Ray has {cpus:g} and {gpus:g}. Lower --cpus-per-student or --gpus-per-student."
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
