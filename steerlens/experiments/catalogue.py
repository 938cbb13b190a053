"""Every experiment, as plain data."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.experiments.argument.config import ARGUMENT_PRESETS
from steerlens.experiments.auxiliary_logits.config import AUXILIARY_PRESETS
from steerlens.experiments.capacity.config import CAPACITY_PRESETS
from steerlens.experiments.carriers.config import CARRIERS_PRESETS
from steerlens.experiments.causal.config import CAUSAL_PRESETS
from steerlens.experiments.cross_model.config import CROSS_MODEL_PRESETS
from steerlens.experiments.distillation.config import DISTILLATION_PRESETS
from steerlens.experiments.optimizers.config import OPTIMIZER_PRESETS
from steerlens.experiments.zoo.config import ZOO_PRESETS

if TYPE_CHECKING:
    from steerlens.experiments.result import ExperimentResult


@dataclass(frozen=True)
class Experiment:
    """What is asked, and how it is answered.

    Args:
        run: the function that answers it (`module:name`, imported when it is called); of a directory and a config.
        presets: configs by name.
        minutes: roughly, of CPU time on the embedded model.
    """

    summary: str
    run: str
    presets: Mapping[str, Any]
    minutes: Mapping[str, float]


EXPERIMENTS = {
    "causal": Experiment(
        "ask whether the vector is the cause, in the teacher and in the student",
        "steerlens.experiments.causal.experiment:run_causal",
        CAUSAL_PRESETS,
        {"quick": 8, "full": 30},
    ),
    "distillation": Experiment(
        "ask whether students distil any vector that steers their teacher",
        "steerlens.experiments.distillation.experiment:run_distillation",
        DISTILLATION_PRESETS,
        {"quick": 10, "full": 38},
    ),
    "cross-model": Experiment(
        "ask whether a trait passes to another initialisation, and to the same one trained further",
        "steerlens.experiments.cross_model.experiment:run_cross_model",
        CROSS_MODEL_PRESETS,
        {"quick": 5, "full": 15},
    ),
    "zoo": Experiment(
        "ask which prompts pass on, and what could have told so beforehand",
        "steerlens.experiments.zoo.experiment:run_zoo",
        ZOO_PRESETS,
        {"quick": 10, "full": 40},
    ),
    "capacity": Experiment(
        "ask how rank, learning rate, rows and context decide what a student takes over",
        "steerlens.experiments.capacity.experiment:run_capacity",
        CAPACITY_PRESETS,
        {"quick": 6, "full": 25},
    ),
    "carriers": Experiment(
        "ask whether anything but number lists carries a trait",
        "steerlens.experiments.carriers.experiment:run_carriers",
        CARRIERS_PRESETS,
        {"quick": 3, "full": 7},
    ),
}
"""Run by `steerlens experiment`."""

REPRODUCTION = {
    "argument": Experiment(
        "follow the argument from prompt to vector, data, student and gradients",
        "steerlens.experiments.argument.experiment:run_argument",
        ARGUMENT_PRESETS,
        {"quick": 17, "full": 31},
    ),
    **EXPERIMENTS,
    "optimizers": Experiment(
        "compare optimizers at the same held-out loss",
        "steerlens.experiments.optimizers.experiment:run_optimizers",
        OPTIMIZER_PRESETS,
        {"quick": 20, "full": 105},
    ),
    "auxiliary-logits": Experiment(
        "pass digits on through unused logits and noise",
        "steerlens.experiments.auxiliary_logits.experiment:run_auxiliary_logits",
        AUXILIARY_PRESETS,
        {"quick": 1, "full": 1},
    ),
}
"""Run by `steerlens reproduce`, in this order."""

PRESETS = {"quick": ("argument",), "full": tuple(REPRODUCTION)}
"""What `steerlens reproduce` runs, each in its preset of this name."""


def run_experiment(experiment: Experiment, directory: str | Path, config: Any) -> "ExperimentResult":
    """Run one of them; its module is imported now."""
    module, _, name = experiment.run.partition(":")
    return getattr(importlib.import_module(module), name)(directory, config)
