"""The experiments that `steerlens experiment` runs, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass

from steerlens.experiments.causal_config import CAUSAL_PRESETS
from steerlens.experiments.config import DataConfig
from steerlens.experiments.cross_model_config import CROSS_MODEL_PRESETS
from steerlens.experiments.distillation_config import DISTILLATION_PRESETS


@dataclass(frozen=True)
class Experiment:
    """What is asked, the function that answers it (`module:name`, imported when it is called), and its presets."""

    summary: str
    run: str
    presets: Mapping[str, DataConfig]


EXPERIMENTS = {
    "causal": Experiment(
        "ask whether the vector is the cause, in the teacher and in the student",
        "steerlens.experiments.causal:run_causal",
        CAUSAL_PRESETS,
    ),
    "distillation": Experiment(
        "ask whether students distil any vector that steers their teacher",
        "steerlens.experiments.distillation:run_distillation",
        DISTILLATION_PRESETS,
    ),
    "cross-model": Experiment(
        "ask whether a trait passes to another initialisation, and to the same one trained further",
        "steerlens.experiments.cross_model:run_cross_model",
        CROSS_MODEL_PRESETS,
    ),
}
