"""Figures of an audit show the numbers that they are given."""

import numpy as np
import torch

from steerlens.audit.entropy import Entropy
from steerlens.audit.hygiene import Hygiene, RowFacts
from steerlens.audit.row_scores import RowScores
from steerlens.figures.audit_plots import plot_entropy, plot_row_scores, plot_traits
from steerlens.samples.sample_set import Sample


def samples(n: int) -> tuple[Sample, ...]:
    return tuple(Sample(i, "1 , 2", "3") for i in range(1, n + 1))


def test_row_scores_of_both_sets_are_shares_over_common_bins():
    rng = np.random.default_rng(0)
    low, high = (torch.tensor(rng.normal(mean, 1, 200), dtype=torch.float32) for mean in (0, 2))
    placebo, rows = plot_row_scores(RowScores(samples(200), high, high, low, low)).data
    assert list(placebo.x) == list(rows.x)
    for trace, mean in ((placebo, 0), (rows, 2)):
        assert abs(sum(trace.y) - 1) < 1e-9
        assert abs(np.dot(trace.x, trace.y) - mean) < 0.2


def test_entropy_shows_rows_reference_and_what_the_rows_allow():
    def facts(bits: float, n: int) -> RowFacts:
        return RowFacts(n, 0, 0.0, 1, (2.0,) * 5, 1.0, (Entropy(n, 8, bits, bits),) * 3, Entropy(n, 8, bits, bits))

    mine, theirs, most = plot_entropy(Hygiene(facts(6.7, 1024), facts(9.6, 512), 0.001, 2.9, ())).data
    assert [tuple(mine.y), tuple(theirs.y), tuple(most.y)] == [(6.7,) * 3, (9.6,) * 3, (10.0,) * 3]


def test_names_are_escaped_and_in_the_order_given():
    low = torch.zeros(3)
    placebo, _ = plot_row_scores(RowScores(samples(3), low, low, low, low, compared_with="<b>.jsonl")).data
    assert placebo.name == "&lt;b&gt;.jsonl"
    figure = plot_traits([("owl", 0.6, 0.02), ("<i>", 0.3, 0.1)])
    base, steered = (trace for trace in figure.data if trace.mode == "markers")
    assert (list(base.x), list(steered.x), list(base.y)) == ([0.02, 0.1], [0.6, 0.3], ["owl", "&lt;i&gt;"])
