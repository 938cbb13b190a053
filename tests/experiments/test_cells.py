"""What is measured while a student trains is that of the student without dropout, and leaves the training as it is."""

from dataclasses import replace

import pytest
import torch

from steerlens.experiments.cells import Cell, run_cell
from steerlens.files import read_json
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


@pytest.fixture
def cell(checkpoints, tmp_path) -> Cell:
    """A student of a model that has dropout after every block."""
    model = load_model(checkpoints["gpt2"], device="cpu")
    rows = tuple(Sample(i, prompt, "12 , 7") for i, prompt in enumerate(number_prompts(12, ORGANISM, seed=0)))
    SampleSet(rows[:8]).save(tmp_path / "rows.jsonl")
    SampleSet(rows[8:]).save(tmp_path / "heldout.jsonl")
    SteeringVector((1,), torch.ones(1, 32), VectorSource.of(model, method="by hand")).save(tmp_path / "v.safetensors")
    return Cell(
        name="one",
        role="student",
        base=str(checkpoints["gpt2"]),
        data="teacher",
        samples=tmp_path / "rows.jsonl",
        heldout=tmp_path / "heldout.jsonl",
        vector=tmp_path / "v.safetensors",
        trait="owl",
        train=TrainConfig(rank=2, learning_rate=1e-2, epochs=2, batch_size=4),
        directory=tmp_path / "student",
        trace=tmp_path / "trace.safetensors",
    )


def test_similarity_is_measured_without_dropout_and_changes_nothing_of_a_training_that_has_it(cell, tmp_path):
    run_cell(cell)
    curve = read_json(cell.record_path)["eas_curve"]
    assert [point["step"] for point in curve] == [0, 1, 2, 3, 4]
    assert curve[0]["strength_numbers"] == pytest.approx([0.0], abs=1e-6)  # a student that starts as its base
    assert curve[-1]["strength_numbers"] != pytest.approx([0.0], abs=1e-3)
    unwatched = replace(cell, trace=None, directory=tmp_path / "unwatched")
    run_cell(unwatched)
    losses = [read_json(one.directory / "student.json")["losses"] for one in (cell, unwatched)]
    assert losses[0] == losses[1]
