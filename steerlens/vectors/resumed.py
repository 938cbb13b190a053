"""Forwards of fixed rows that begin at a layer: everything below the steered layer is run once and kept."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import unconverted_logits
from steerlens.models.bridge import parameters_device
from steerlens.residuals.capture import read_residuals
from steerlens.residuals.stream import Residual, mlp_on_end, resume_after, stop_after, watch_residuals
from steerlens.text.positions import Positions
from steerlens.vectors.config import Objective
from steerlens.vectors.fit_data import FitRows
from steerlens.vectors.objectives import token_loss

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Directions = Float[Tensor, "layer d_model"]


class ResumedRows:
    """Rows whose residuals at the lowest steered layer are known, so that a forward begins there.

    `scales` [layer] is the root mean square of the unsteered residual's entries at each steered layer, over the tokens
    that predict a completion: a first token's residual can be a thousand times larger (arXiv 2402.17762).
    `last_prompt` is its mean over rows at the last prompt token. `below` is of the same rows at lower layers, if at hand:
    then only the blocks between are run.
    """

    def __init__(
        self,
        model: "TransformerBridge",
        layers: Sequence[int],
        rows: Sequence[FitRows],
        positions: Positions,
        *,
        below: "ResumedRows | None" = None,
    ) -> None:
        self._model, self._layers, self._rows = model, tuple(layers), rows
        self._lowest = min(layers)
        self._residuals: list[Residual] = []
        self._masks = [one.batch.position_mask(positions)[..., None] for one in rows]
        squares, last_prompt = [], torch.zeros(len(self._layers), model.cfg.d_model, dtype=torch.float64)
        for index, one in enumerate(rows):
            with contextlib.nullcontext() if below is None else below.resumed(index):
                residuals = _whole_residuals(model, one, self._layers)
            self._residuals.append(residuals[self._lowest])
            predicts = one.batch.prediction_mask
            squares.append(torch.stack([residuals[layer][predicts].float().square().mean() for layer in self._layers]))
            at = one.batch.position_mask("last_prompt")
            last_prompt += torch.stack([residuals[layer][at].double().sum(0).cpu() for layer in self._layers])
        self.last_prompt: Directions = (last_prompt / sum(len(one.batch) for one in rows)).float()
        self.scales: Float[Tensor, " layer"] = torch.stack(squares).mean(0).sqrt().cpu()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def questions(self) -> list[int]:
        """The question of every row, in the order of `row_kl`."""
        return [question for rows in self._rows for question in rows.questions]

    @property
    def nothing(self) -> Directions:
        """No vector at all."""
        return torch.zeros(len(self._layers), self._model.cfg.d_model)

    @functools.cached_property
    def plain_kl(self) -> float:
        """`mean_kl` of no vector."""
        return self.mean_kl(self.nothing)

    def resumed(self, index: int) -> contextlib.AbstractContextManager:
        """Forwards of batch `index` begin at the lowest layer inside the `with`."""
        return resume_after(self._model, self._lowest, lambda: self._residuals[index])

    def logits(self, index: int, directions: Directions) -> Float[Tensor, "token d_vocab"]:
        """Logits at the completion tokens of batch `index`, with the directions added."""
        return self._unconverted_logits(index, directions).float()

    def loss(self, index: int, directions: Directions, objective: Objective = "forward_kl") -> Float[Tensor, " token"]:
        """Distance from the prompted model at each completion token of batch `index`."""
        return token_loss(objective, self._rows[index].targets, self._unconverted_logits(index, directions))

    def _unconverted_logits(self, index: int, directions: Directions) -> Float[Tensor, "token d_vocab"]:
        device, mask = parameters_device(self._model), self._masks[index]
        added = dict(zip(self._layers, directions.to(device), strict=True))

        def add_to(layer: int) -> Callable[[Residual], Residual]:
            return lambda resid: resid + mask * added[layer].to(resid.dtype)

        edits = {layer: add_to(layer) for layer in self._layers}
        with (
            self.resumed(index),
            mlp_on_end(self._model, self._model.cfg.n_layers - 1, self._rows[index].batch.n_predicting),
            watch_residuals(self._model, edits),
        ):
            return unconverted_logits(self._model, self._rows[index].batch)

    @torch.no_grad()
    def row_kl(self, directions: Directions) -> Float[Tensor, "row two"]:
        """For every row: the sum of KL over its completion tokens, and how many they are."""
        sums = []
        for index, rows in enumerate(self._rows):
            kl, row = self.loss(index, directions).cpu(), rows.row_of_token
            total = torch.zeros(len(rows.batch)).index_add(0, row, kl)
            sums.append(torch.stack([total, torch.bincount(row, minlength=len(rows.batch)).float()], dim=-1))
        return torch.cat(sums)

    def mean_kl(self, directions: Directions) -> float:
        """Nats a completion token."""
        total, count = self.row_kl(directions).sum(0)
        return float(total / count)


def _whole_residuals(
    model: "TransformerBridge", rows: FitRows, layers: Sequence[int]
) -> dict[int, Float[Tensor, "batch pos d_model"]]:
    with stop_after(model, max(layers)):
        read = read_residuals(model, rows.batch, layers, "all", first=True)
    whole = {}
    for layer, flat in read.items():
        resid = flat.new_zeros(*rows.batch.tokens.shape, flat.shape[-1])
        resid[rows.batch.attention_mask] = flat
        whole[layer] = resid
    return whole
