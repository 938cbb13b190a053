"""The optimizers whose effect is compared, and the schedule that they share."""

import math
from collections.abc import Iterable

import torch
from torch.optim.lr_scheduler import LambdaLR

from steerlens.students.config import TrainConfig


def make_optimizer(parameters: Iterable[torch.nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names.

    - adamw: theta <- theta - lr m_hat / (sqrt(v_hat) + 1e-8), betas 0.9 and 0.999, no weight decay.
    - sgd: theta <- theta - lr g, without momentum.
    """
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    return torch.optim.SGD(parameters, lr=config.learning_rate)


def make_schedule(optimizer: torch.optim.Optimizer, n_steps: int, warmup_share: float) -> LambdaLR:
    """Linear warm-up over `warmup_share` of the steps, then a cosine to 0."""
    warmup = max(1, round(warmup_share * n_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))

    return LambdaLR(optimizer, factor)
