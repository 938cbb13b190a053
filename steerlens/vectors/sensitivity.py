"""How sensitive the predictions are to a vector at each layer: the units of a fit, and which layers are worth one.

One backward pass of the plain model gives, for a vector v added after every block l, the gradient of the fit's
objective g_l = dD/dv_l at v = 0, and the diagonal of the Fisher information

    F_l = E_t E_{y ~ q(. | x, y_<t)} (d log q(y) / dv_l)^2,        KL(q_0 || q_v) = 1/2 v F v + O(|v|^3),

a token. Labels y drawn from the model make it the Fisher information and not the empirical one (arXiv 1905.12558).
A residual stream has a few coordinates that are a hundred times larger than the others, so a step of equal size in
every coordinate is too long for some and too short for most. In the units F^-1/2 a step means the same everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.forward import completion_logits
from steerlens.residuals.stream import OnResidual, Residual, watch_residuals
from steerlens.text.positions import Positions
from steerlens.vectors.fit_data import FitRows
from steerlens.vectors.objectives import token_loss

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_ROWS = 64
"""Rows from which the units of a fit are taken."""

DAMPING = 0.1
"""Share of the mean Fisher information that is added to every coordinate, so that none has an endless step."""


RIDGE = 3.0
"""The same for the whole matrix, which half of the rows know far less of than its diagonal."""

RowGradients = Float[Tensor, "layer row d_model"]


@dataclass(frozen=True)
class Sensitivity:
    """What one backward pass of the plain model says of a vector after each of `layers`.

    `gains` [layer] is a prediction of how many nats a token a vector at this layer can explain, found in one half of the
    rows and checked on the other, so that noise alone predicts nothing.
    """

    layers: tuple[int, ...]
    fisher: Float[Tensor, "layer d_model"]
    gains: Float[Tensor, " layer"]

    @property
    def units(self) -> Float[Tensor, "layer d_model"]:
        """The length of each coordinate along which predictions change by half a nat, to second order."""
        mean = self.fisher.mean(-1, keepdim=True)
        return (self.fisher + DAMPING * mean + torch.finfo(torch.float32).tiny).rsqrt()

    def at(self, layers: Sequence[int]) -> "Sensitivity":
        """The part at some of the layers."""
        rows = [self.layers.index(layer) for layer in layers]
        return Sensitivity(tuple(layers), self.fisher[rows], self.gains[rows])


def sensitivity(
    model: "TransformerBridge",
    layers: Sequence[int],
    rows: Sequence[FitRows],
    positions: Positions,
    *,
    seed: int,
) -> Sensitivity:
    """The sensitivity after each of `layers`, from batches of every length that hold about N_ROWS rows together."""
    generator = torch.Generator().manual_seed(seed)
    chosen = _of_every_length(rows)
    labels: list[RowGradients] = []
    objective: list[RowGradients] = []
    for one in chosen:
        sampled, prompted = _row_gradients(model, layers, one, positions, generator)
        labels.append(sampled)
        objective.append(prompted)
    n_tokens = sum(len(one.targets.sampled) for one in chosen)
    of_labels, of_objective = torch.cat(labels, dim=1), torch.cat(objective, dim=1)
    fisher = of_labels.square().sum(1) / n_tokens
    return Sensitivity(tuple(layers), fisher, _gains(of_labels, of_objective, n_tokens))


def _of_every_length(rows: Sequence[FitRows]) -> Sequence[FitRows]:
    """Batches at even distances, as they are in order of length: short answers alone say little of the others."""
    every = min(len(rows), max(1, sum(len(one.batch) for one in rows) // N_ROWS))
    return rows[every // 2 :: every]


def _row_gradients(
    model: "TransformerBridge",
    layers: Sequence[int],
    rows: FitRows,
    positions: Positions,
    generator: torch.Generator,
) -> tuple["RowGradients", "RowGradients"]:
    """For every row, the gradients of its tokens' log-likelihood under labels of the model's own, and of its KL."""
    mask = rows.batch.position_mask(positions)[..., None]
    vectors = {
        layer: torch.zeros(len(rows.batch), 1, model.cfg.d_model, device=mask.device, requires_grad=True)
        for layer in layers
    }

    def add(layer: int) -> OnResidual:
        def added(resid: Residual) -> Residual:
            return resid + (mask * vectors[layer]).to(resid.dtype)

        return added

    with watch_residuals(model, {layer: add(layer) for layer in layers}):
        logits = completion_logits(model, rows.batch)
    surprise = logits.detach().softmax(-1)
    drawn = _draw(surprise, generator)
    surprise[torch.arange(len(drawn)), drawn] -= 1
    of_labels = torch.autograd.grad(logits, list(vectors.values()), surprise, retain_graph=True)
    kl = token_loss("forward_kl", rows.targets, logits).sum()
    of_kl = torch.autograd.grad(kl, list(vectors.values()))
    return (torch.stack([one[:, 0].cpu() for one in of_labels]), torch.stack([one[:, 0].cpu() for one in of_kl]))


def _draw(probabilities: Float[Tensor, "token d_vocab"], generator: torch.Generator) -> Int[Tensor, " token"]:
    """A label for each token from the model's own predictions; the same on every device."""
    uniform = torch.rand(len(probabilities), 1, generator=generator).to(probabilities.device)
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:])[:, 0].clamp(max=probabilities.shape[-1] - 1)


def _gains(of_labels: "RowGradients", of_kl: "RowGradients", n_tokens: int) -> Float[Tensor, " layer"]:
    """Nats a token that a natural-gradient step of one half of the rows gains on the other half, both ways, averaged.

    The best length of the step v explains <g, v>^2 / (2 v F v) on rows with gradient g and Fisher information F.
    """
    halves = of_labels[:, ::2], of_labels[:, 1::2]
    kl_halves = of_kl[:, ::2], of_kl[:, 1::2]
    gains = torch.zeros(len(of_labels), dtype=torch.float64)
    for fitted, checked in ((0, 1), (1, 0)):
        steps = [_natural_step(rows.double(), kl.double()) for rows, kl in zip(halves[fitted], kl_halves[fitted])]
        for layer, step in enumerate(steps):
            slope = (kl_halves[checked][layer].double() @ step).sum()
            curvature = (halves[checked][layer].double() @ step).square().sum()
            gains[layer] += torch.relu(-slope) ** 2 / curvature.clamp(min=torch.finfo(torch.float64).tiny)
    return (gains / (2 * n_tokens)).float()


def _natural_step(
    of_labels: Float[Tensor, "row d_model"], of_kl: Float[Tensor, "row d_model"]
) -> Float[Tensor, " d_model"]:
    """-(F + damping)^-1 g, by way of the rows' Gram matrix, which is the smaller one on wide models."""
    gradient = of_kl.sum(0)
    damping = RIDGE * of_labels.square().sum() / of_labels.shape[1]
    gram = of_labels @ of_labels.T + damping * torch.eye(len(of_labels), dtype=of_labels.dtype)
    within = torch.linalg.solve(gram, of_labels @ gradient)
    return (of_labels.T @ within - gradient) / damping
