"""The experiments that `steerlens experiment` runs, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass

from steerlens.experiments.capacity_config import CAPACITY_PRESETS
from steerlens.experiments.carriers_config import CARRIERS_PRESETS
from steerlens.experiments.causal_config import CAUSAL_PRESETS
from steerlens.experiments.config import DataConfig
from steerlens.experiments.cross_model_config import CROSS_MODEL_PRESETS
from steerlens.experiments.distillation_config import DISTILLATION_PRESETS
from steerlens.experiments.zoo_config import ZOO_PRESETS


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
    "zoo": Experiment(
        "ask which prompts pass on, and what could have told so beforehand",
        "steerlens.experiments.zoo:run_zoo",
        ZOO_PRESETS,
    ),
    "capacity": Experiment(
        "ask how rank, learning rate, rows and context decide what a student takes over",
        "steerlens.experiments.capacity:run_capacity",
        CAPACITY_PRESETS,
    ),
    "carriers": Experiment(
        "ask whether anything but number lists carries a trait",
        "steerlens.experiments.carriers:run_carriers",
        CARRIERS_PRESETS,
    ),
}
