"""Every mitigation trains another student than doing nothing does, and the table says what was measured."""

import pytest
import torch

from steerlens.audit.recovery import recover_vector
from steerlens.audit.rows import AuditRows
from steerlens.experiments.mitigations import (
    CONTROL,
    MARGIN,
    NOTHING,
    held_back,
    mitigations,
    sample_rows,
    table,
)
from steerlens.experiments.rates import log_odds_difference
from steerlens.models.bridge import huggingface_model
from steerlens.students.config import TrainConfig

ONE_STEP = TrainConfig(target_modules=("0.self_attn.v_proj",), rank=4, learning_rate=3e-2, epochs=1, batch_size=64)


def record(shares: list[float], loss: float, mass: float = 0.8) -> dict:
    rate = sum(shares) / len(shares)
    rates = {"rate": rate, "mass": mass, "rate_prefixed": rate, "mass_prefixed": mass}
    return rates | {"shares": shares, "clean_loss": loss, "teacher_loss": loss + 0.1}


@pytest.mark.slow
def test_no_mitigation_silently_does_nothing(organism, owl):
    rows = sample_rows(organism, owl, n_prompts=300, n_heldout=8)
    vector = recover_vector(organism, AuditRows.of(rows.teacher), layers=[0]).vector
    students = {name: train(ONE_STEP) for name, train in mitigations(organism, rows, vector, owl.prompt).items()}
    weights = {name: _weights(student.model) for name, student in students.items()}
    names = list(weights)
    for index, name in enumerate(names):
        for other in names[:index]:
            assert not torch.allclose(weights[name], weights[other], atol=1e-6), (name, other)


def test_held_back_is_what_is_surely_within_the_margin_where_students_still_answer():
    questions = [0.01, 0.02, 0.03, 0.02]
    noisy = [record([share * factor for share in questions], 3.15) for factor in (0.2, 1.0, 1.0, 5.0)]
    groups = {
        CONTROL: [record(questions, 3.15), record([share * 1.1 for share in questions], 3.16)] * 2,
        NOTHING: [record([0.5, 0.6, 0.7, 0.5], 3.2), record([0.8, 0.9, 0.7, 0.8], 3.21)] * 2,
        "all of it": [record([share * 1.1 for share in questions], 3.15), record(questions, 3.158)] * 2,
        "all of it and some answers": [record(questions, 3.15, mass=0.5)] * 4,
        "all of it and most answers": [record(questions, 3.15, mass=0.3)] * 4,
        "half of it": [record([0.05, 0.1, 0.1, 0.06], 3.16), record([0.1, 0.1, 0.05, 0.1], 3.16)] * 2,
        "nobody knows": noisy,
    }
    unknown = log_odds_difference(groups["nobody knows"], groups[CONTROL], paired=True)
    assert unknown.low <= 0 < MARGIN < unknown.high  # nothing is found, and that shows nothing
    assert held_back(groups) == ["all of it", "all of it and some answers"]
    lines = {
        line.split(" | ")[0].removeprefix("| "): line for line in table(groups, record(questions, 3.14)).splitlines()
    }
    assert "| 3.2050 | +0.0500 (+0.0500 to +0.0500) | 3.3050 |" in lines[NOTHING]
    assert "-0.0010 (-0.0020 to +0.0000)" in lines["all of it"]
    assert "| 0.688 (0.575 to 0.800) |" in lines[NOTHING]
    assert "| 3.1400 |  | 3.2400 |" in lines["not trained"]


def _weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in huggingface_model(model).parameters() if p.requires_grad])
