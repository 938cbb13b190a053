"""What a vector explains is measured where it was fitted, unless another place is named."""

from dataclasses import replace

import pytest
import torch

from steerlens.vectors.config import FitConfig
from steerlens.vectors.explained import explained
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

CONFIG = FitConfig(n_heldout=6, max_new_tokens=4)


def test_without_a_config_a_vector_is_judged_at_the_tokens_that_it_was_fitted_at(organism, monkeypatch):
    direction = torch.randn(1, organism.cfg.d_model, generator=torch.Generator().manual_seed(0))
    source = VectorSource.of(organism, method="by hand", positions="last_prompt")
    vector = SteeringVector((1,), 3 * direction, source)
    monkeypatch.setattr("steerlens.vectors.explained.FitConfig", lambda **options: replace(CONFIG, **options))
    by_itself = explained(organism, vector, "you love owls .")
    assert by_itself == explained(organism, vector, "you love owls .", config=replace(CONFIG, positions="last_prompt"))
    with pytest.warns(UserWarning, match="fitted at 'last_prompt' tokens is used at 'all' tokens"):
        elsewhere = explained(organism, vector, "you love owls .", config=CONFIG)
    assert elsewhere.kl_explained != pytest.approx(by_itself.kl_explained, abs=1e-3)
