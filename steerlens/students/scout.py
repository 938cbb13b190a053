"""Take Adam's scales from a scout: a student that is trained for them alone."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from steerlens.arguments import checked
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import model_name
from steerlens.models.unwrapping import unwrapped
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.scales import AdamScales
from steerlens.students.step import TrainStep
from steerlens.students.training import train_student

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@checked
def adam_scales(
    model: "TransformerBridge", samples: SampleSet | AuditRows, config: TrainConfig | None = None, *, eps: float = 1e-8
) -> AdamScales:
    """Train a student with AdamW as `config` says, and freeze the scales with which it ended.

    The paper's scout trains for one epoch. What `config` says about other optimizers, scales and checkpoints is not
    the scout's, and left out; its LoRA settings and rotation have to be those of the student that will use the scales.

    Raises:
        ValueError, FloatingPointError: as `train_student`.
    """
    scout = replace(
        config or TrainConfig(epochs=1),
        optimizer="adamw",
        scales=None,
        scale_map="full",
        freeze_outliers=False,
        zero_outliers=False,
        checkpoint_every=0,
        state_every=0,
    )
    last: list[TrainStep] = []

    def keep(step: TrainStep) -> None:
        last[:] = [step]

    train_student(model, samples, scout, on_update=keep)
    student, moments = huggingface_model(last[0].model), last[0].optimizer.state
    with unwrapped(student):
        scales = {
            name: torch.rsqrt(moments[parameter]["exp_avg_sq"] + eps).cpu()
            for name, parameter in student.named_parameters()
            if parameter.requires_grad
        }
    return AdamScales(scales, eps, {"model": model_name(model), "config": asdict(scout), "steps": last[0].n_steps})
