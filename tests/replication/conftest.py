"""A profile and labs small enough for tests, and what experiments need to be judged by hand."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.profile import Preset, Profile, read_profile

SMALL = """
extends = "organism"
fit_layers = [1, 2]
[student]
epochs = 1
learning_rate = 3e-3
[smoke]
n_prompts = 160
n_rows = 24
n_heldout = 8
n_tasks = 8
n_mean = 8
n_random = 1
fit = { n_train = 16, n_validation = 8, n_heldout = 8, steps = 3, max_new_tokens = 8 }
"""


@pytest.fixture(scope="session")
def small_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The organism, with a handful of rows and one epoch."""
    path = tmp_path_factory.mktemp("profile") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def lab_in(small_profile, monkeypatch) -> Callable[..., Lab]:
    """A lab of the small profile in a directory. Its jobs are done in this process, as another takes longer to begin."""
    monkeypatch.setattr("steerlens.jobs._processes", lambda: contextlib.nullcontext(lambda do, job: do(job)))

    def made(directory: Path, preset: Preset = "smoke", profile: Profile | None = None) -> Lab:
        return Lab(profile or read_profile(small_profile), preset, directory, sl.Workers(1))

    return made


def answers(rate: float, mass: float = 0.9, n: int = 6, **distribution: float) -> sl.Answers:
    """A model that answers with this rate at every question."""
    shares = rate + np.linspace(-0.01, 0.01, n)
    return sl.Answers(rate, rate - 0.01, rate + 0.01, mass, shares, {"owl": rate, "cat": 1 - rate} | distribution)


def asked(rate: float, mass: float = 0.9, **distribution: float) -> sl.Asked:
    """The same in both contexts."""
    return sl.Asked(answers(rate, mass, **distribution), answers(rate, mass, **distribution))


def student(
    rate: float, seed: int = 0, *, mass: float = 0.9, loss: float = 3.0, rate_of_learning: float = 0.03,
    cosine: tuple[float, ...] = (0.8, 0.5), strength: tuple[float, ...] = (0.4, 0.3), **distribution: float,
) -> sl.StudentRecord:  # fmt: skip
    """A student that was never trained."""
    similarity = sl.Similarity(np.array(cosine), np.array(strength))
    one = answers(rate, mass, **distribution)
    train = sl.TrainConfig(seed=seed, learning_rate=rate_of_learning)
    return sl.StudentRecord(f"s{seed}", Path("nowhere"), train, loss, loss, one, one, similarity, similarity)


def summary(rate: float, eas: tuple[float, ...] = (0.8, 0.5)) -> compare.Summary:
    """Of a group of students with this rate."""
    return compare.summary((student(rate, cosine=eas),))
