"""What callers may see of a training while it runs."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.students.processes import Processes

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class TrainStep:
    """What `on_step` is given after each backward pass, before the optimizer moves the weights.

    `loss` is what is minimised, over all the batch's completion tokens, of which there are `n_tokens`; `row_losses` is
    [batch]; both are in nats a token. `gradient_norm` is the global norm before clipping, `row_norms` the norm of each
    row's own gradient where rows are clipped or left out. `keeps_state` says that the trainer's state is saved after this
    step, so that what shall outlive a kill has to be on disk by then. `model` is this process's.
    """

    step: int
    n_steps: int
    learning_rate: float
    loss: float
    row_losses: Float[Tensor, " batch"]
    gradient_norm: float
    model: "TransformerBridge"
    n_tokens: int
    row_norms: Float[Tensor, " batch"] | None
    optimizer: torch.optim.Optimizer
    keeps_state: bool
    processes: Processes


OnStep = Callable[[TrainStep], None]
OnStart = Callable[["TransformerBridge"], contextlib.AbstractContextManager[None]]
