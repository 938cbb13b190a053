"""The units of a fit are those of the predictions: Fisher information, checked against the predictions themselves."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from steerlens.forward import completion_logits
from steerlens.models.bridge import frozen
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRows
from steerlens.vectors.objectives import Targets
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.sensitivity import sensitivity
from tests.vectors.test_fitting import plant

CONFIG = FitConfig(n_train=64, n_validation=12, n_heldout=12, max_new_tokens=6, batch_size=16)


@pytest.fixture
def data(tiny):
    return FitData.sample(tiny, "you love owls .", number_prompts(120, tiny, seed=8), CONFIG)


def test_half_the_fisher_information_times_the_square_is_the_kl_of_a_small_step(tiny, data):
    """Along random directions, whose KL the diagonal gives on average; an independent measure of the same curvature."""
    with frozen(tiny):
        fisher = sensitivity(tiny, [1, 2], data.train, "all", seed=0).fisher
        for index, layer in enumerate((1, 2)):
            rows = ResumedRows(tiny, [layer], data.train, "all")
            predicted, measured = 0.0, 0.0
            for seed in range(8):
                signs = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed)).sign()
                step = 0.02 * rows.scales[:, None] * signs
                targets = [rows.logits(i, rows.nothing).log_softmax(-1) for i in range(len(rows))]
                steered = [rows.logits(i, step).log_softmax(-1) for i in range(len(rows))]
                kl = [(p.exp() * (p - q)).sum(-1) for p, q in zip(targets, steered, strict=True)]
                measured += float(torch.cat(kl).mean())
                predicted += float((0.5 * fisher[index] * step.square()).sum())
            assert predicted / measured == pytest.approx(1, abs=0.35)


def test_units_are_long_where_predictions_hardly_change(tiny, data):
    with frozen(tiny):
        found = sensitivity(tiny, [2], data.train, "all", seed=0)
    order = found.fisher[0].argsort()
    assert found.units[0][order].diff().max() <= 0
    assert torch.isfinite(found.units).all()


def test_a_planted_vector_promises_a_gain_and_noise_promises_none(tiny, data, monkeypatch):
    noise = torch.Generator().manual_seed(0)

    def perturbed(rows: FitRows) -> FitRows:
        with torch.no_grad():
            logits = completion_logits(tiny, rows.batch)
        logits = logits + torch.randn(logits.shape, generator=noise)
        return replace(rows, targets=Targets.of(logits, rows.targets.sampled, top_k=1))

    with frozen(tiny):
        by_noise = [perturbed(rows) for rows in data.train]
        promised_by_noise = sensitivity(tiny, range(4), by_noise, "all", seed=0).gains / kl(tiny, by_noise)
    plant(tiny, 1, monkeypatch, relative_norm=0.3)
    planted = FitData.sample(tiny, "you love owls .", number_prompts(120, tiny, seed=8), CONFIG)
    with frozen(tiny):
        promised = sensitivity(tiny, range(4), planted.train, "all", seed=0).gains / kl(tiny, planted.train)
    assert promised[1] > 0.2
    assert promised_by_noise.max() < 0.05


def kl(model, parts: Sequence[FitRows]) -> float:
    """Nats a token that the targets are from the plain model's predictions."""
    rows = ResumedRows(model, [1], parts, "all")
    return rows.mean_kl(rows.nothing)


def test_batches_larger_than_what_is_asked_for_are_asked_whole(tiny, data):
    (rows,) = FitData.sample(
        tiny, "you love owls .", number_prompts(120, tiny, seed=9), replace(CONFIG, batch_size=64)
    ).train
    twice = [rows, replace(rows, batch=rows.batch)]
    with frozen(tiny):
        assert sensitivity(tiny, [2], twice * 2, "all", seed=0).fisher.isfinite().all()
