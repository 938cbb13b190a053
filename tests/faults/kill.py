"""A program of its own: kills commands by SIGKILL at random steps of their writing, and runs them undisturbed as well.

Its argument is a directory, where it leaves what the killed and the undisturbed commands wrote. Every moment is a point of
progress, not of time: just before the n-th file is flushed, or put in its place. Commands run in forks, which saves their
imports; a run's students are trained in the fork itself, for the same reason.
"""

import contextlib
import itertools
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from steerlens import jobs
from steerlens.cli import main
from steerlens.models.loading import load_model
from steerlens.samples import teacher
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student

N_KILLS = {"sample": 8, "train": 10, "argument": 6, "optimizers": 4, "distillation": 4}
MOST_WRITES = {"sample": 3, "train": 8, "argument": 30, "optimizers": 18, "distillation": 30}
"""A kill comes before one of so many flushes and replacements."""

PROFILE = """
extends = "organism"
[student]
epochs = 1
learning_rate = 3e-3
[smoke]
n_prompts = 80
n_rows = 24
n_heldout = 8
n_other_traits = 2
n_tasks = 8
n_mean = 8
n_random = 1
fit = { n_train = 16, n_validation = 8, n_heldout = 8, steps = 4 }
"""


def sample(directory: Path) -> None:
    teacher.ROWS_PER_CHUNK = 8
    assert not main(
        ["sample", "--system-prompt", "you love owls .", "--n", "60", "--out", str(directory / "rows.jsonl")]
    )


def train(directory: Path) -> None:
    rows = str(directory.parent.parent / "whole" / "sample" / "rows.kept.jsonl")
    train_config = ["--epochs", "2", "--batch-size", "8", "--rank", "2", "--target-modules", "q_proj"]
    flags = [*train_config, "--state-every", "2", "--checkpoint-every", "3"]
    assert not main(["train", rows, *flags, "--out", str(directory / "student")])


def replicate(name: str, directory: Path) -> None:
    """An experiment of the laboratory, on a small profile."""
    profile = directory.parent / "small.toml"
    profile.write_text(PROFILE)
    assert main(
        ["replicate", name, "--on", str(profile), "--preset", "smoke", "--workers", "1", "--out", str(directory)]
    ) in (0, 3)


def argument(directory: Path) -> None:
    replicate("argument", directory)


def optimizers(directory: Path) -> None:
    replicate("optimizers", directory)


def distillation(directory: Path) -> None:
    replicate("distillation", directory)


COMMANDS: dict[str, Callable[[Path], None]] = {
    command.__name__: command for command in (sample, train, argument, optimizers, distillation)
}


@contextlib.contextmanager
def here() -> Iterator[jobs.Elsewhere]:
    """Instead of another process."""
    yield lambda do, job: do(job)


def killed_before(n: int) -> None:
    """Let this process be killed just before its n-th flush or replacement of a file."""
    writes = itertools.count(1)

    def counted(call: Callable) -> Callable:
        def wrapped(*arguments, **options):
            if next(writes) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def is_killed(command: Callable[[Path], None], directory: Path, n: int | None) -> bool:
    """Run the command in a fork; whether it was killed. A command that fails ends everything."""
    child = os.fork()
    if not child:
        try:
            if n is not None:
                killed_before(n)
            command(directory)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"{command.__name__} failed in {directory}")
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs._processes = here
    train_student(load_model(), SampleSet((Sample(0, "1 , 2", "3"),)), TrainConfig())  # imports what the forks share
    root, moments = Path(sys.argv[1]), random.Random(0)
    for name, command in COMMANDS.items():
        killed, whole = (root / which / name for which in ("killed", "whole"))
        killed.mkdir(parents=True)
        whole.mkdir(parents=True)
        is_killed(command, whole, None)
        kills = sum(is_killed(command, killed, moments.randint(1, MOST_WRITES[name])) for _ in range(N_KILLS[name]))
        is_killed(command, killed, None)
        print(name, kills, flush=True)
