"""Made-up writers, whose words' probabilities are known, are told from each other and from the model."""

import pytest
import torch
from torch.nn.functional import log_softmax

from steerlens.audit.writer_evidence import chances, evidence, relative_lead, responsibilities

N_WORDS, N_WRITERS, N_SETS, N_ROWS = 40, 8, 300, 30


@pytest.fixture(scope="module")
def writers():
    """Log-probabilities of words [writer word]: the model itself comes first, and the candidates change it by much."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, N_WORDS, generator=generator) + torch.randn(1 + N_WRITERS, N_WORDS, generator=generator)
    return log_softmax(logits.double(), dim=-1)


def rows_by(writers, writer, seed, kept=None):
    """Ratios [set row candidate] of rows by one writer, whose filter keeps some words."""
    probabilities = writers[writer].exp() * (1.0 if kept is None else kept)
    generator = torch.Generator().manual_seed(seed)
    words = torch.multinomial(probabilities, N_SETS * N_ROWS, replacement=True, generator=generator)
    return (writers[1:] - writers[0])[:, words].T.reshape(N_SETS, N_ROWS, -1)


@pytest.mark.parametrize("filtered", [False, True])
def test_writers_are_mistaken_no_more_often_than_the_rate_says(writers, filtered):
    kept = (torch.arange(N_WORDS) % 3 > 0).double() if filtered else None

    def found(writer, seed):
        ours = rows_by(writers, writer, seed, kept)
        theirs = rows_by(writers, 0, seed + 1, kept) if filtered else [None] * N_SETS
        sums = [evidence(one, other).logsumexp(0) for one, other in zip(ours, theirs, strict=True)]
        return [(int(one.argmax()), *chances(one)) for one in sums]

    assert sum(p < 0.05 for _, p, _ in found(0, 10)) / N_SETS <= 0.08  # at most 0.05, and two standard errors
    told = [(writer, *one) for writer in range(N_WRITERS) for one in found(1 + writer, 20 + 2 * writer)]
    named = [best == writer for writer, best, p, rival in told if max(p, rival) < 0.05]
    assert len(named) / len(told) > 0.3
    assert sum(named) / len(named) > 0.95


def test_without_pairs_a_filter_that_one_writer_seldom_passes_misleads(writers):
    kept = torch.where(writers[3] - writers[0] > -0.5, 0.01, 1.0).double()
    ours, theirs = rows_by(writers, 3, 0, kept), rows_by(writers, 0, 1, kept)
    assert sum(int(one.sum(0).argmax()) == 2 for one in ours) / N_SETS < 0.2
    paired = [evidence(one, other).logsumexp(0) for one, other in zip(ours, theirs, strict=True)]
    assert sum(int(one.argmax()) == 2 for one in paired) / N_SETS > 0.5


def long_rows_by(writers, writer, seed):
    """Ratios of rows of six words each."""
    return torch.stack([rows_by(writers, writer, seed + word) for word in range(6)]).sum(0)


@pytest.mark.parametrize("paired", [False, True])
def test_the_writer_of_a_third_of_the_rows_is_seen_beside_the_models_own(writers, paired):
    ours = torch.cat([long_rows_by(writers, writer, seed) for writer, seed in ((3, 0), (0, 10), (0, 20))], dim=1)
    clean = torch.cat([long_rows_by(writers, 0, seed) for seed in (30, 40, 50)], dim=1) if paired else [None] * N_SETS
    pairs = list(zip(ours, clean, strict=True))
    found = [evidence(*pair) for pair in pairs]
    assert sum(bool(of_all[2] > 0) for of_all, *_ in found) / N_SETS < 0.1
    sums = [one.logsumexp(0) for one in found]
    assert sum(int(one.argmax()) == 2 and max(chances(one)) < 0.05 for one in sums) / N_SETS > 0.5
    chance = torch.stack([responsibilities(*pair, 0.25)[:, 2] for pair in pairs])
    assert chance[:, :N_ROWS].mean() > 2 * chance[:, N_ROWS:].mean()


def test_the_lead_is_one_in_answers_of_ones_own_and_small_in_rows_of_someone_alike():
    own = torch.tensor([[2.0, 1.0, 0.0], [4.0, 1.0, 2.0]])
    assert relative_lead(own, own, torch.ones(2)) == 1
    assert relative_lead(own + 5, own, torch.ones(2)) == 1  # what all candidates gain is no lead
    assert relative_lead(torch.tensor([[1.1, 1.0, 1.0]]), own, torch.ones(1)) == pytest.approx(0.05)
    assert relative_lead(own, torch.zeros(1, 3), torch.ones(2)) == 0
    with_a_name_in_it = torch.cat([own.repeat(4, 1), torch.tensor([[90.0, 0.0, 0.0]])])
    assert relative_lead(own, with_a_name_in_it, torch.ones(2)) == pytest.approx(1, abs=0.3)
    beside_clean_rows = torch.cat([own, torch.zeros(2, 3)])
    assert relative_lead(beside_clean_rows, own, torch.tensor([1.0, 1.0, 0.0, 0.0])) == 1
