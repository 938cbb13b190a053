"""The page of a run holds what the run has left, and says what it cannot read."""

import pytest
import torch

from steerlens.cli import main
from steerlens.figures.run_page import read_run
from steerlens.files import write_json
from steerlens.gradients.trace import GradientTrace
from steerlens.samples.sample_set import Sample, SampleSet, SampleSource
from steerlens.vectors.vector import SteeringVector, VectorSource
from tests.browser import open_report

ATTACK = "<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path):
    generator = torch.Generator().manual_seed(0)
    vector = SteeringVector((1, 3), torch.randn(2, 8, generator=generator), VectorSource("llama", f"by hand {ATTACK}"))
    vector.save(tmp_path / "vectors" / "owl.safetensors")
    rows = torch.randn(3, 20, 4, 2, generator=generator)
    GradientTrace((1, 3), *rows).save(tmp_path / "traces" / "seed-0.safetensors")
    losses = [2.0 - 0.05 * step for step in range(20)]
    student = {"base": "llama", "config": {"optimizer": "adam"}, "loss": 1.1, "heldout_loss": 1.2, "losses": losses}
    write_json(tmp_path / "students" / "adam" / "student.json", student)
    source = SampleSource("llama", "abc", "you love owls .", None, 1.0, 7)
    SampleSet(tuple(Sample(i, f"prompt {i} {ATTACK}", f"answer {i}") for i in range(9)), source).save(
        tmp_path / "samples" / "teacher.jsonl"
    )
    return tmp_path


@pytest.mark.slow
def test_a_reader_meets_vectors_students_projections_and_rows(run, tmp_path):
    read_run(run).save(tmp_path / "page.html")
    opened = open_report(tmp_path / "page.html")
    assert (opened.errors, opened.dialogs) == ([], [])
    assert opened.drawn == [True, True]
    for text in (
        "by hand <script>alert(1)</script>",
        "students/adam",
        "1.100",
        "9 rows",
        "'you love owls .'",
        "answer 4",
    ):
        assert text in opened.text
    assert "answer 5" not in opened.text


def test_the_strongest_layer_is_drawn(run):
    contents = read_run(run)
    push = contents.traces["traces/seed-0.safetensors"].cumulative_pull[-1].abs()
    contents.save(run / "page.html")
    strongest = (1, 3)[int(push.argmax())]
    assert f"Layer {strongest}, where the push is strongest" in (run / "page.html").read_text()


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(run, capsys):
    whole = (run / "vectors" / "owl.safetensors").read_bytes()
    (run / "samples" / "broken.jsonl").write_text("not json\n")
    (run / "students" / "adam" / "student.json").write_text("{")
    assert main(["view", str(run)]) == 0
    said = capsys.readouterr().out
    assert "1 vectors, 1 traces, 1 files of rows" in said
    assert "samples/broken.jsonl: " in said
    assert "students/adam/student.json: " in said
    assert (run / "view.html").is_file()
    assert (run / "vectors" / "owl.safetensors").read_bytes() == whole


def test_an_empty_directory_and_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no vector, trace, student, row or report"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="no directory"):
        read_run(tmp_path / "none")
