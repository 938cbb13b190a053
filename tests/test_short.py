"""Results show themselves in a line or two, however much is in them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.audit.behaviour import RaisedAnswers, Rise
from steerlens.audit.entangled import EntangledToken, Entanglement
from steerlens.audit.row_scores import RowScores
from steerlens.evaluation import TraitScore
from steerlens.gradients.pooled import PooledCosine
from steerlens.gradients.steps import StepTrace
from steerlens.gradients.trace import GradientTrace
from steerlens.samples.filters import FilterResult
from steerlens.samples.rows import AuditRows, Rejected
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.short import LONGEST, cut, some
from steerlens.students.scales import AdamScales
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.probe import Behaviour
from steerlens.vectors.source import VectorSource
from steerlens.vectors.sweep import LayerSweep, SweepPoint
from steerlens.vectors.vector import SteeringVector

LAYERS = tuple(range(80))
LONG = "You love owls. " * 200
NOISE = torch.randn(1000, generator=torch.Generator().manual_seed(0))
VECTOR = SteeringVector(LAYERS, torch.ones(80, 64), VectorSource("m", LONG, prompt=LONG), FitMetrics(kl_explained=0.5))
SAMPLES = SampleSet(tuple(Sample(row, LONG, LONG) for row in range(1000)))
ROWS = AuditRows(
    "rows.jsonl", tuple(sl.Sample(i, sl.as_chat(LONG), LONG) for i in range(1000)), (Rejected(7, LONG),) * 50
)
SWEEP = LayerSweep(
    "m",
    LONG,
    "owl",
    tuple(SweepPoint("fitted", layer, 1.0, 0.5, 0.4, 0.6, Behaviour()) for layer in LAYERS),
    Behaviour(),
    Behaviour(),
    {"fitted": VECTOR},
)
ANSWERS = sl.Answers(0.5, 0.4, 0.6, 0.7, np.full(500, 0.5), {f"animal {i}": 0.01 for i in range(90)})
SIMILARITY = sl.Similarity(np.arange(80) / 100, np.full(80, 0.5))
RESULTS = {
    "TraitScore": (
        TraitScore("owl", ("owl", *"abc"), "bare", "f", torch.full((500, 4), 0.2)),
        ("owl", "0.250", "0.800", "500"),
    ),
    "SteeringVector": (VECTOR, ("0, 1, 2, 3, ... 79", "norm 8", "kl_explained 0.500")),
    "SampleSet": (SAMPLES, ("1000 samples", "You love owls.")),
    "FilterResult": (FilterResult(SAMPLES, Counter({"cut off": 3})), ("1000 of 1003", "3 cut off")),
    "LayerSweep": (SWEEP, ("80 settings", "fitted", "No clean setting")),
    "AuditRows": (ROWS, ("1050 rows, 1000 used",)),
    "RowScores": (
        RowScores(tuple(sl.Sample(i, "a prompt", LONG) for i in range(1000)), *[NOISE] * 4),
        ("1000 rows", "0.500"),
    ),
    "GradientTrace": (
        GradientTrace(LAYERS, *[torch.full((300, 32, 80), 0.25)] * 3),
        ("300 steps of 32 rows", "+0.250", "... 79"),
    ),
    "StepTrace": (
        StepTrace(LAYERS, ("numbers",), tuple(range(300)), torch.ones(300, 1, 80)),
        ("300 steps", "numbers", "+300"),
    ),
    "PooledCosine": (PooledCosine(LAYERS, (8, 64), *[torch.full((200, 2, 80), 0.1)] * 3), ("64 rows", "+0.100")),
    "AdamScales": (
        AdamScales({f"w{i}": torch.ones(100) for i in range(300)}, 1e-8, {}),
        ("30000 coordinates in 300 parameters",),
    ),
    "RaisedAnswers": (
        RaisedAnswers((Rise("owl", 3.0, 0.5, 0.1),) * 90, (1.0,) * 39, ((LONG,) * 3,)),
        ("owl 0.100 -> 0.500", "0.025"),
    ),
    "Entanglement": (
        Entanglement((EntangledToken("owl", 1, 0.1, 0.1, 2, 0.02),) * 20, 0.1, 0.0, 0.2),
        ("0.100 nats", "'owl' (p 0.02)"),
    ),
    "Answers": (ANSWERS, ("0.500", "0.400 to 0.600", "90 answers", "0.700", "500 questions")),
    "Asked": (sl.Asked(ANSWERS, ANSWERS), ("bare, Answers: rate 0.500", "after numbers, Answers")),
    "StudentRecord": (
        sl.StudentRecord("owl-s0", Path("d"), sl.TrainConfig(), 1.5, 1.6, ANSWERS, ANSWERS, SIMILARITY, SIMILARITY),
        ("'owl-s0'", "1.500", "1.600", "rate 0.500"),
    ),
    "Similarity": (SIMILARITY, ("80 layers", "+0.790", "+0.500")),
    "FitMetrics": (
        sl.FitMetrics(0.5, 0.4, 0.6, 0.1, by_layer={layer: sl.LayerMetrics(0.5, 0.1) for layer in LAYERS}),
        ("kl_explained 0.500 (0.400 to 0.600)", "kl_prompt 0.100", "80 layers"),
    ),
    "Wording": (sl.NATURAL, ("'natural'", "animal")),
    "PublishedSets": (sl.PublishedSets((LONG,) * 50, (LONG,) * 50, {}), ("50 questions",)),
    "ShownProjection": (
        sl.ShownProjection(LONG, ("owl",) * 500, 100, LAYERS, NOISE[:500].repeat(80, 1), NOISE[:500].repeat(80, 1), 3),
        ("You love owls.",),
    ),
    "Trait": (sl.preference_trait("owl"), ("'owl'", "questions", "You love owls.")),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_in_a_cell_is_short_and_has_the_numbers_that_matter(name):
    result, numbers = RESULTS[name]
    text = repr(result)
    assert text.startswith(name)
    assert len(text) <= LONGEST
    for number in numbers:
        assert number in text


def test_a_long_text_is_cut_and_says_so():
    assert cut("owls  and\nmice") == "owls and mice"
    assert cut("x" * 50, 10) == "xxxxxxx..."
    assert some(range(80)) == "0, 1, 2, 3, ... 79"
    assert some(range(3)) == "0, 1, 2"
