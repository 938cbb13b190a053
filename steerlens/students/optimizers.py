"""The optimizers whose effect is compared, and the schedule that they share.

Weight decay is 0 everywhere, so AdamW is Adam. With g the gradient after clipping, theta the parameters and lr the
scheduled learning rate, a step is:

- adamw: theta <- theta - lr m_hat / (sqrt(v_hat) + 1e-8), m and v the moving averages of g and g^2 with betas 0.9 and
  0.999, corrected for their start at 0 (Kingma & Ba, arXiv 1412.6980; torch.optim.AdamW).
- rmsprop: theta <- theta - lr g / (sqrt(v) + 1e-8), v <- 0.99 v + 0.01 g^2 from 0, not corrected, so that the first
  step is 10 lr sign(g) (Hinton's lecture 6e, 2012; torch.optim.RMSprop).
- sgd: theta <- theta - lr g (torch.optim.SGD).
- sgd_momentum: b <- 0.9 b + g, theta <- theta - lr b (Polyak 1964 as in torch.optim.SGD: not damped, so lr acts up to
  10 times).
- signsgd: theta <- theta - lr sign(g) (Bernstein et al., arXiv 1802.04434).
- normalized_sgd: theta <- theta - lr g / ||g||, the norm over all parameters together (Hazan et al., arXiv 1507.02030).
- preconditioned_sgd: theta <- theta - lr s * g, s frozen; see `AdamScales`. The scales act as they are in their file:
  `AdamScales.normalized` keeps learning rates comparable to SGD's (arXiv 2606.00995, section 6.3).
- muon: b <- 0.95 b + 0.05 g, theta <- theta - lr sqrt(max(1, rows / columns)) O(0.05 g + 0.95 b), O the nearest
  orthogonal matrix by five Newton-Schulz iterations; matrices only (Jordan et al. 2024; torch.optim.Muon).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from steerlens.students.config import TrainConfig
from steerlens.students.scales import AdamScales

Parameters = Mapping[str, torch.nn.Parameter]


def make_optimizer(
    parameters: Parameters, config: TrainConfig, scales: AdamScales | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `config` names.

    Raises:
        ValueError: it needs scales and there are none, or they are those of other parameters.
    """
    values, rate = list(parameters.values()), config.learning_rate
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(values, lr=rate, weight_decay=0.0)
        case "rmsprop":
            return torch.optim.RMSprop(values, lr=rate)
        case "sgd":
            return torch.optim.SGD(values, lr=rate)
        case "sgd_momentum":
            return torch.optim.SGD(values, lr=rate, momentum=0.9)
        case "muon":
            return torch.optim.Muon(values, lr=rate, weight_decay=0.0)
        case "signsgd":
            return _sgd_along(values, rate, _signs)
        case "normalized_sgd":
            return _sgd_along(values, rate, _divide_by_norm)
    if scales is None:
        raise ValueError(f"optimizer={config.optimizer!r} needs scales, and there are none. Give AdamScales.")
    scales.check_parameters(parameters)
    mapped = scales.mapped(config.scale_map, config.outlier_share)
    by_parameter = {value: mapped[name].to(value) for name, value in parameters.items()}
    return _sgd_along(values, rate, lambda moving: _multiply(moving, by_parameter))


def _sgd_along(
    parameters: list[torch.nn.Parameter], rate: float, redirect: Callable[[list[torch.nn.Parameter]], None]
) -> torch.optim.Optimizer:
    """SGD whose gradients `redirect` changes, in place, before each step."""
    optimizer = torch.optim.SGD(parameters, lr=rate)
    optimizer.register_step_pre_hook(lambda *_: redirect([p for p in parameters if p.grad is not None]))
    return optimizer


def _signs(parameters: list[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        _gradient(parameter).sign_()


def _divide_by_norm(parameters: list[torch.nn.Parameter]) -> None:
    norm = torch.nn.utils.get_total_norm([_gradient(parameter) for parameter in parameters]).clamp(min=1e-30)
    for parameter in parameters:
        _gradient(parameter).div_(norm)


def _multiply(parameters: list[torch.nn.Parameter], scales: Mapping[torch.nn.Parameter, Tensor]) -> None:
    for parameter in parameters:
        _gradient(parameter).mul_(scales[parameter])


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@contextlib.contextmanager
def outliers_treated(parameters: Parameters, config: TrainConfig, scales: AdamScales | None) -> Iterator[None]:
    """The two interventions on outliers, whatever the optimizer: frozen for as long as the block lasts, zeroed first.

    Gradients are zeroed where they arise, so that outliers count in no norm either.
    """
    handles = []
    if scales is not None and (config.freeze_outliers or config.zero_outliers):
        scales.check_parameters(parameters)
        for name, outliers in scales.outliers(config.outlier_share).items():
            parameter, mask = parameters[name], outliers.to(parameters[name].device)
            if config.zero_outliers:
                parameter.data.masked_fill_(mask, 0.0)
            if config.freeze_outliers:
                handles.append(parameter.register_hook(lambda gradient, mask=mask: gradient.masked_fill(mask, 0.0)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def make_schedule(optimizer: torch.optim.Optimizer, n_steps: int, warmup_share: float) -> LambdaLR:
    """Linear warm-up over `warmup_share` of the steps, then a cosine to 0."""
    warmup = max(1, round(warmup_share * n_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))

    return LambdaLR(optimizer, factor)
