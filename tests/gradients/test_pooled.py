"""Pooling finds a planted direction, at the rate of statistics, and nothing in the nulls."""

import numpy as np
import pytest
import torch

from steerlens.gradients.outliers import gini, kurtosis, top_share
from steerlens.gradients.pooled import compare_pooled, pooled_difference_cosine
from steerlens.gradients.recorder import trace_gradients
from steerlens.gradients.row_gradients import row_gradients
from steerlens.samples.encoded import encode_samples
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.vectors.vector import SteeringVector, VectorSource

D_MODEL, N_ROWS = 64, 512


@pytest.fixture(scope="module")
def planted():
    """Noise of norm 8 in every row, and a shift of 1 along v in the teacher's."""
    generator = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(1, D_MODEL, generator=generator), dim=-1)
    teacher, control = (torch.randn(1, N_ROWS, D_MODEL, generator=generator) for _ in range(2))
    vector = SteeringVector((0,), v, VectorSource("none", "planted"))
    return compare_pooled(teacher + v, control, vector, (1, 16, 256), n_subsets=400, seed=0)


def test_the_cosine_with_a_planted_direction_grows_with_the_rows_as_expected(planted):
    mean = planted.observed.mean(0)[:, 0]
    for cosine, size in zip(mean.tolist(), planted.sizes, strict=True):
        noise = 2 * D_MODEL / size + 2 * D_MODEL / N_ROWS  # of the subsets, and of the rows themselves
        assert cosine == pytest.approx(1 / (1 + noise) ** 0.5, abs=0.07)
    low, _ = planted.interval(planted.observed)
    assert low[-1, 0] > 0.5


@pytest.mark.parametrize("null", ["shuffled", "random"])
def test_nulls_stay_around_zero_at_every_size(planted, null):
    draws = getattr(planted, null)
    low, high = planted.interval(draws)
    assert (low < 0).all()
    assert (high > 0).all()
    assert draws.mean(0).abs().max() < 4 / D_MODEL**0.5 / 400**0.5


def test_row_gradients_are_what_tracing_projects(tiny, vector, samples):
    gradients = row_gradients(tiny, encode_samples(tiny, samples), vector.layers, positions="all", batch_size=3)
    recorder = trace_gradients(tiny, vector)
    config = TrainConfig(rank=2, epochs=1, batch_size=10)
    train_student(tiny, samples, config, on_start=recorder.watch, on_step=recorder.record)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    pulls = -(gradients[:, order] * vector.unit[:, None]).sum(-1)
    torch.testing.assert_close(recorder.trace.pull[0].T, pulls, atol=1e-5, rtol=1e-3)


def test_capturing_gradients_leaves_the_model_without_any(tiny, vector, samples):
    row_gradients(tiny, encode_samples(tiny, samples), vector.layers)
    assert all(parameter.grad is None for parameter in tiny.original_model.parameters())


def test_two_equal_sets_differ_in_nothing_and_swapped_sets_in_the_opposite(tiny, vector, samples):
    one, other = samples.split(5)
    there = pooled_difference_cosine(tiny, one, other, vector, sizes=(1, 4, 99), n_subsets=50)
    back = pooled_difference_cosine(tiny, other, one, vector, sizes=(1, 4, 99), n_subsets=2000)
    more = pooled_difference_cosine(tiny, one, other, vector, sizes=(1, 4), n_subsets=2000)
    assert there.sizes == (1, 4)
    torch.testing.assert_close(back.observed.mean(0), -more.observed.mean(0), atol=0.05, rtol=0)
    same = pooled_difference_cosine(tiny, one, one, vector, sizes=(5,), n_subsets=2000)
    assert same.observed.mean(0).abs().max() < 0.05


def test_empty_sets_and_sizes_are_refused(tiny, vector, samples):
    with pytest.raises(ValueError, match="There are no samples to train or measure on"):
        pooled_difference_cosine(tiny, SampleSet(()), samples, vector)
    with pytest.raises(ValueError, match=r"sizes=\(64,\) has none in 1\.\.10"):
        pooled_difference_cosine(tiny, samples, samples, vector, sizes=(64,))
    assert isinstance(samples.samples[0], Sample)


def test_tail_statistics_of_known_distributions():
    generator = np.random.default_rng(0)
    normal = torch.from_numpy(generator.standard_normal(100_000))
    exponential = torch.from_numpy(generator.exponential(size=100_000))
    assert kurtosis(normal) == pytest.approx(3.0, abs=0.1)
    assert kurtosis(exponential) == pytest.approx(9.0, abs=1.0)
    assert gini(exponential) == pytest.approx(0.5, abs=0.01)
    assert top_share(exponential, 0.01) == pytest.approx(0.01 * (1 + np.log(100)), abs=0.003)


def test_tail_statistics_by_hand():
    assert gini(torch.ones(7)) == pytest.approx(0.0)
    assert gini(torch.tensor([0.0, 0.0, 0.0, 5.0])) == pytest.approx(0.75)
    assert top_share(torch.tensor([[1.0, 1.0], [2.0, torch.nan]]), 0.1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="none of them a number"):
        kurtosis(torch.tensor([torch.nan]))
