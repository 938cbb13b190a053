"""Every mitigation of the example trains another student than doing nothing does, and the table says what was measured."""

import numpy as np
import pytest
import torch

import steerlens as sl
from examples.mitigate import CONTROL, MARGIN, NOTHING, Measured, difference, held_back, mitigations, sample_rows, table
from steerlens.models.bridge import huggingface_model

ONE_STEP = sl.TrainConfig(target_modules=("0.self_attn.v_proj",), rank=4, learning_rate=3e-2, epochs=1, batch_size=64)


def record(shares: list[float], loss: float, mass: float = 0.8) -> Measured:
    rate = sum(shares) / len(shares)
    answers = sl.Answers(rate, rate, rate, mass, np.array(shares), {})
    return Measured(answers, answers, loss, loss + 0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* rows kept")
def test_no_mitigation_silently_does_nothing(organism, owl):
    rows = sample_rows(organism, owl, n_prompts=300, n_heldout=8)
    vector = sl.recover_vector(organism, sl.AuditRows.of(rows.teacher), layers=[0]).vector
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
    unknown = difference(groups["nobody knows"], groups[CONTROL])
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
