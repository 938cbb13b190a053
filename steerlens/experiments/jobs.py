"""Many independent pieces of work, several at a time, each done once: what a run is resumed by."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partialmethod
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from steerlens.files import read_json


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


def run_jobs(
    jobs: Sequence[AnyJob], do: Callable[[AnyJob], None], workers: int, *, what: str = "students"
) -> list[dict[str, Any]]:
    """Do every job that has no record yet, `workers` at a time (0: one a core), and return all records in order.

    Raises:
        RuntimeError: some jobs failed; the others' records are on disk all the same.
    """
    missing = [job for job in jobs if not job.record_path.is_file()]
    progress = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=what, unit=what.removesuffix("s"))
    failures = []
    with (
        progress,
        ProcessPoolExecutor(
            max_workers=workers or os.cpu_count() or 1,
            mp_context=get_context("spawn"),
            initializer=_quiet_single_thread,
        ) as pool,
    ):
        running = {pool.submit(do, job): job for job in missing}
        try:
            for future in as_completed(running):
                if (error := future.exception()) is not None:
                    failures.append(f"{running[future].name}: {type(error).__name__}: {error}")
                progress.update()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise RuntimeError(f"Some {what} failed; run again to retry them alone.\n" + "\n".join(failures))
    return [read_json(job.record_path) for job in jobs]


def _quiet_single_thread() -> None:
    """In a worker: the parent's progress bar is the only one, and workers do not fight for cores."""
    logging.disable_progress_bar()
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # pyright: ignore[reportAttributeAccessIssue]
    torch.set_num_threads(1)
