"""What a training reports arrives in the tracker, number by number; a tracker that breaks does not break the training."""

import sys

import pytest

from steerlens.checks import WrongInput
from steerlens.figures.plots import plot_gradient_projection
from steerlens.gradients.recorder import trace_gradients
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts
from steerlens.tracking import TrackerWarning, track_training
from steerlens.vectors.vector import SteeringVector, VectorSource

CONFIG = TrainConfig(epochs=1, batch_size=4, learning_rate=1e-3, rank=2)


@pytest.fixture
def samples() -> SampleSet:
    return SampleSet(
        tuple(
            Sample(i, prompt, "12 , 7" if i % 2 else "1 , 2 , 3")
            for i, prompt in enumerate(number_prompts(12, ORGANISM, seed=0))
        )
    )


@pytest.fixture
def vector(tiny) -> SteeringVector:
    import torch

    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((1, 3), directions, VectorSource.of(tiny, method="by hand"))


class Log:
    """A run that keeps what it is given."""

    def __init__(self, fails_at: int = -1):
        self.rows, self.fails_at = [], fails_at

    def log(self, metrics, step=None):
        if step == self.fails_at:
            raise ConnectionError("no route to the server")
        self.rows.append((step, metrics))


def test_losses_and_pulls_of_every_step_arrive(tiny, samples, vector):
    run, recorder = Log(), trace_gradients(tiny, vector)
    tracker = track_training(run, recorder=recorder)
    student = train_student(tiny, samples, CONFIG, on_start=recorder.watch, on_step=tracker)
    figure = plot_gradient_projection({"owl": [recorder.trace]}, layer=3)
    tracker.figure("pull", figure)
    *steps, last = run.rows
    assert [step for step, _ in steps] == [0, 1, 2]
    assert [metrics["loss"] for _, metrics in steps] == list(student.losses)
    for layer, column in ((1, 0), (3, 1)):
        pulls = [metrics[f"pull/layer {layer}"] for _, metrics in steps]
        assert pulls == pytest.approx(recorder.trace.mean_pull[:, column].tolist())
    assert last == (None, {"pull": figure})


def test_tracking_changes_nothing_and_reports_as_often_as_it_is_told(tiny, samples):
    run = Log()
    tracked = train_student(tiny, samples, CONFIG, on_step=track_training(run, every=2))
    assert tracked.losses == train_student(tiny, samples, CONFIG).losses
    assert [step for step, _ in run.rows] == [0, 2]


def test_a_tracker_that_fails_is_left_alone_and_the_training_ends(tiny, samples):
    run = Log(fails_at=1)
    with pytest.warns(TrackerWarning, match=r"no route to the server.*goes on") as warned:
        student = train_student(tiny, samples, CONFIG, on_step=track_training(run))
    assert len(student.losses) == 3
    assert len(run.rows) == 1
    assert sum(issubclass(one.category, TrackerWarning) for one in warned) == 1


@pytest.mark.parametrize("run", ["trackio", None, object()])
def test_what_is_no_tracker_is_refused(run):
    with pytest.raises(WrongInput, match=r"run must be a tracker, got .*SummaryWriter"):
        track_training(run)
    with pytest.raises(ValueError, match="every=0"):
        track_training(Log(), every=0)


def test_trackio_keeps_numbers_and_figure_in_its_local_files(tiny, samples, vector, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its directory when it is imported
    import trackio

    trackio.init(project="owls", name="first", embed=False)
    recorder = trace_gradients(tiny, vector)
    tracker = track_training(trackio, recorder=recorder)
    student = train_student(tiny, samples, CONFIG, on_start=recorder.watch, on_step=tracker)
    tracker.figure("pull", plot_gradient_projection({"owl": [recorder.trace]}, layer=3))
    trackio.finish()
    from trackio.sqlite_storage import SQLiteStorage

    logged = SQLiteStorage.get_logs("owls", "first")
    losses = [row["loss"] for row in logged if "loss" in row]
    assert losses == pytest.approx(student.losses, rel=1e-5)
    assert sum("pull" in row for row in logged) == 1
    assert list(tmp_path.rglob("*.html"))


def test_tensorboard_keeps_the_numbers(tiny, samples, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tensorboard.SummaryWriter(tmp_path) as writer:
        student = train_student(tiny, samples, CONFIG, on_step=track_training(writer))
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(student.losses, rel=1e-5)
