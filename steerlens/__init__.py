"""steerlens: system prompts as steering vectors, from prompt to trained student.

The public names, in the order of the story. They are imported when first used, so that `import steerlens`
is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlens.audit.audit import AuditResult, audit_dataset
    from steerlens.audit.behaviour import probe_behaviour
    from steerlens.audit.entangled import token_entanglement
    from steerlens.audit.hygiene import check_hygiene
    from steerlens.audit.mitigations import (
        annealed_kl,
        change_threshold,
        drop_rows,
        importance_weighted,
        token_changes,
        without_changed_tokens,
    )
    from steerlens.audit.recovery import RecoveredVector, recover_vector
    from steerlens.audit.row_scores import score_rows
    from steerlens.audit.rows import AuditRows, read_rows, rows_for_model
    from steerlens.evaluation import TraitScore, compare_log_odds, score_trait
    from steerlens.experiments.config import ORGANISM_STUDENT
    from steerlens.experiments.dissection import random_like
    from steerlens.figures.audit_plots import plot_gain, plot_row_scores, plot_traits
    from steerlens.figures.plots import (
        plot_gradient_projection,
        plot_pooled_cosine,
        plot_rates,
        plot_steps,
        plot_strengths,
    )
    from steerlens.figures.token_plots import plot_tokens
    from steerlens.figures.vector_plots import plot_controls, plot_cosines, plot_prompt_fit, plot_readout, plot_sweep
    from steerlens.forward import generate
    from steerlens.gradients.counterfactual import preventative_steering, together, without_component
    from steerlens.gradients.parts import TraceParts
    from steerlens.gradients.pooled import PooledCosine, pooled_difference_cosine
    from steerlens.gradients.recorder import trace_gradients
    from steerlens.gradients.steps import StepTrace, trace_steps
    from steerlens.gradients.trace import GradientTrace
    from steerlens.models.loading import load_model
    from steerlens.residuals.capture import capture_residuals, mean_residuals
    from steerlens.samples.filters import keep_number_lists
    from steerlens.samples.sample_set import Sample, SampleSet
    from steerlens.samples.teacher import sample_teacher
    from steerlens.samples.vllm import VllmEngine
    from steerlens.students.config import TrainConfig
    from steerlens.students.scales import AdamScales
    from steerlens.students.scout import adam_scales
    from steerlens.students.student import Student
    from steerlens.students.training import train_student
    from steerlens.text.chat import as_chat
    from steerlens.text.number_lists import number_prompts
    from steerlens.text.trait import Trait, preference_trait
    from steerlens.vectors.analysis import PromptAnalysis, analyze_prompt
    from steerlens.vectors.config import FitConfig
    from steerlens.vectors.fitting import fit_prompt_vector
    from steerlens.vectors.formats import export_gguf, import_gguf, import_paper, import_tensor
    from steerlens.vectors.interventions import steer
    from steerlens.vectors.means import diff_in_means, model_shift, principal_difference
    from steerlens.vectors.readout import promoted_tokens
    from steerlens.vectors.show import show_positions
    from steerlens.vectors.source import VectorSource
    from steerlens.vectors.sweep import LayerSweep, sweep_layers
    from steerlens.vectors.vector import SteeringVector, mean_centred

__version__ = "0.1.0"

_HOMES = {
    "steerlens.text.trait": ("Trait", "preference_trait"),
    "steerlens.text.chat": ("as_chat",),
    "steerlens.text.number_lists": ("number_prompts",),
    "steerlens.models.loading": ("load_model",),
    "steerlens.forward": ("generate",),
    "steerlens.residuals.capture": ("capture_residuals", "mean_residuals"),
    "steerlens.vectors.source": ("VectorSource",),
    "steerlens.vectors.vector": ("SteeringVector", "mean_centred"),
    "steerlens.vectors.means": ("diff_in_means", "model_shift", "principal_difference"),
    "steerlens.vectors.config": ("FitConfig",),
    "steerlens.vectors.fitting": ("fit_prompt_vector",),
    "steerlens.vectors.readout": ("promoted_tokens",),
    "steerlens.vectors.sweep": ("LayerSweep", "sweep_layers"),
    "steerlens.vectors.analysis": ("PromptAnalysis", "analyze_prompt"),
    "steerlens.vectors.interventions": ("steer",),
    "steerlens.vectors.show": ("show_positions",),
    "steerlens.vectors.formats": ("export_gguf", "import_gguf", "import_paper", "import_tensor"),
    "steerlens.samples.sample_set": ("Sample", "SampleSet"),
    "steerlens.samples.teacher": ("sample_teacher",),
    "steerlens.samples.vllm": ("VllmEngine",),
    "steerlens.samples.filters": ("keep_number_lists",),
    "steerlens.students.config": ("TrainConfig",),
    "steerlens.students.scales": ("AdamScales",),
    "steerlens.students.scout": ("adam_scales",),
    "steerlens.students.student": ("Student",),
    "steerlens.students.training": ("train_student",),
    "steerlens.gradients.trace": ("GradientTrace",),
    "steerlens.gradients.recorder": ("trace_gradients",),
    "steerlens.gradients.parts": ("TraceParts",),
    "steerlens.gradients.steps": ("StepTrace", "trace_steps"),
    "steerlens.gradients.pooled": ("PooledCosine", "pooled_difference_cosine"),
    "steerlens.gradients.counterfactual": ("preventative_steering", "together", "without_component"),
    "steerlens.audit.rows": ("AuditRows", "read_rows", "rows_for_model"),
    "steerlens.audit.hygiene": ("check_hygiene",),
    "steerlens.audit.row_scores": ("score_rows",),
    "steerlens.audit.entangled": ("token_entanglement",),
    "steerlens.audit.recovery": ("RecoveredVector", "recover_vector"),
    "steerlens.audit.behaviour": ("probe_behaviour",),
    "steerlens.audit.mitigations": (
        "change_threshold",
        "drop_rows",
        "importance_weighted",
        "annealed_kl",
        "token_changes",
        "without_changed_tokens",
    ),
    "steerlens.audit.audit": ("AuditResult", "audit_dataset"),
    "steerlens.evaluation": ("TraitScore", "compare_log_odds", "score_trait"),
    "steerlens.experiments.config": ("ORGANISM_STUDENT",),
    "steerlens.experiments.dissection": ("random_like",),
    "steerlens.figures.plots": (
        "plot_gradient_projection",
        "plot_pooled_cosine",
        "plot_rates",
        "plot_steps",
        "plot_strengths",
    ),
    "steerlens.figures.audit_plots": ("plot_gain", "plot_row_scores", "plot_traits"),
    "steerlens.figures.token_plots": ("plot_tokens",),
    "steerlens.figures.vector_plots": (
        "plot_controls",
        "plot_cosines",
        "plot_prompt_fit",
        "plot_readout",
        "plot_sweep",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ORGANISM_STUDENT",
    "AdamScales",
    "AuditResult",
    "AuditRows",
    "FitConfig",
    "GradientTrace",
    "LayerSweep",
    "PooledCosine",
    "PromptAnalysis",
    "RecoveredVector",
    "Sample",
    "SampleSet",
    "SteeringVector",
    "StepTrace",
    "Student",
    "TraceParts",
    "TrainConfig",
    "Trait",
    "TraitScore",
    "VectorSource",
    "VllmEngine",
    "adam_scales",
    "analyze_prompt",
    "annealed_kl",
    "as_chat",
    "audit_dataset",
    "capture_residuals",
    "change_threshold",
    "check_hygiene",
    "compare_log_odds",
    "diff_in_means",
    "drop_rows",
    "export_gguf",
    "fit_prompt_vector",
    "generate",
    "import_gguf",
    "import_paper",
    "import_tensor",
    "importance_weighted",
    "keep_number_lists",
    "load_model",
    "mean_centred",
    "mean_residuals",
    "model_shift",
    "number_prompts",
    "plot_controls",
    "plot_cosines",
    "plot_gain",
    "plot_gradient_projection",
    "plot_pooled_cosine",
    "plot_prompt_fit",
    "plot_rates",
    "plot_readout",
    "plot_row_scores",
    "plot_steps",
    "plot_strengths",
    "plot_sweep",
    "plot_tokens",
    "plot_traits",
    "pooled_difference_cosine",
    "preference_trait",
    "preventative_steering",
    "principal_difference",
    "probe_behaviour",
    "promoted_tokens",
    "random_like",
    "read_rows",
    "recover_vector",
    "rows_for_model",
    "sample_teacher",
    "score_rows",
    "score_trait",
    "show_positions",
    "steer",
    "sweep_layers",
    "together",
    "token_changes",
    "token_entanglement",
    "trace_gradients",
    "trace_steps",
    "train_student",
    "without_changed_tokens",
    "without_component",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'steerlens' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
