"""A training's losses, projections and figures in an experiment tracker: trackio, wandb, TensorBoard, or one shaped alike."""

import io
import types
from typing import TYPE_CHECKING, Any

from steerlens.arguments import checked
from steerlens.checks import WrongInput, shown
from steerlens.warn import warn

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from steerlens.gradients.recorder import GradientRecorder
    from steerlens.students.step import TrainStep


class TrackerWarning(UserWarning):
    """A tracker failed; the training goes on without it."""


@checked
def track_training(run: Any, *, recorder: "GradientRecorder | None" = None, every: int = 1) -> "Tracker":
    """An `on_step` that reports a training.

        trackio.init(project="owls")
        recorder = trace_gradients(model, vector)
        tracker = track_training(trackio, recorder=recorder)
        train_student(model, samples, config, on_start=recorder.watch, on_step=tracker)
        tracker.figure("pull", plot_gradient_projection({"owl": [recorder.trace]}, layer=3))
        trackio.finish()

    It reports `loss` (nats a token), `learning_rate`, `gradient_norm` and, with a recorder, `pull/layer <l>`, the step's
    `GradientTrace.mean_pull` in nats per unit of residual.

    Args:
        run: the module trackio or wandb after its init, a run of theirs, or a TensorBoard SummaryWriter. Who makes it also
            ends it.
        recorder: its `record` is called by the tracker; do not pass it to the training as well.
        every: steps from one report to the next.

    Raises:
        WrongInput: `run` has neither `log` nor `add_scalar`.
        ValueError: `every` is below 1.
    """
    if hasattr(run, "add_scalar"):
        run = _TensorBoard(run)
    elif not callable(getattr(run, "log", None)):
        raise WrongInput(
            f"run must be a tracker, got {shown(run)}. Give the module trackio or wandb after its init(project=...), the run "
            "that init returned, or a TensorBoard SummaryWriter."
        )
    return Tracker(run, recorder, every)


class Tracker:
    """Reports each step to a run. A run that fails is left alone from then on, with one `TrackerWarning`."""

    def __init__(self, run: Any, recorder: "GradientRecorder | None", every: int) -> None:
        self._run: Any = run
        self._recorder, self._every = recorder, every

    def __call__(self, step: "TrainStep") -> None:
        """Report the backward pass that has just ended."""
        if self._recorder is not None:
            self._recorder.record(step)
        if step.processes.is_main and step.step % self._every == 0:
            numbers = {"loss": step.loss, "learning_rate": step.learning_rate, "gradient_norm": step.gradient_norm}
            self._log({**numbers, **self._pulls()}, step.step)

    def figure(self, name: str, figure: "go.Figure") -> None:
        """Report a plotly figure under `name`, behind the last step."""
        self._log({name: _as_media(self._run, figure)}, None)

    def _pulls(self) -> dict[str, float]:
        trace = None if self._recorder is None else self._recorder.last
        if trace is None:
            return {}
        return {
            f"pull/layer {layer}": float(pull) for layer, pull in zip(trace.layers, trace.mean_pull[0], strict=True)
        }

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        if self._run is None:
            return
        try:
            self._run.log(values, step=step)
        except Exception as error:  # a tracker's network or disk is no reason to lose a training
            self._run = None
            warn(
                f"The tracker failed ({type(error).__name__}: {error}). The training goes on and is not reported any more.",
                TrackerWarning,
            )


def _as_media(run: Any, figure: "go.Figure") -> Any:
    """The figure as the run's library takes it: wandb takes plotly's own, trackio a page of HTML."""
    library = run.__name__ if isinstance(run, types.ModuleType) else type(run).__module__
    if library.split(".")[0] == "trackio":
        import trackio  # pyright: ignore[reportMissingImports]

        return trackio.Html(figure)
    return figure


class _TensorBoard:
    """A SummaryWriter as a run."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._step = writer, 0

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self._step = self._step if step is None else step
        for name, value in metrics.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, self._step)
            else:
                self._writer.add_image(name, _pixels(value), self._step, dataformats="HWC")
        self._writer.flush()


def _pixels(figure: "go.Figure") -> Any:
    """The figure as [height width channel], drawn by kaleido."""
    import numpy as np
    from PIL import Image  # pyright: ignore[reportMissingImports]

    return np.asarray(Image.open(io.BytesIO(figure.to_image(format="png"))).convert("RGB"))
