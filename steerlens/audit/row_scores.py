"""Which rows carry a vector most: weak evidence about any single row, calibrated on clean rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.audit.placebo import OWN_ANSWERS, PLACEBO_SEED, EncodedRow, own_answers
from steerlens.forward import completion_logits
from steerlens.residuals.stream import OnResidual, Residual, resume_after, watch_residuals
from steerlens.samples.encoded import batches_by_length, encode_answer
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample
from steerlens.stats import auroc, bootstrap_interval
from steerlens.text.batches import TokenBatch
from steerlens.text.chat import Chat, encode_prompt
from steerlens.text.number_lists import list_length
from steerlens.text.positions import Positions
from steerlens.vectors.interventions import steer
from steerlens.vectors.objectives import token_log_probs
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Score = Literal["log_linear", "projection"]
RowValues = Float[Tensor, " row"]
SCORES: tuple[Score, ...] = ("log_linear", "projection")
ANSWER_SEED = 2 * PLACEBO_SEED
"""Neither rows nor placebos that were sampled here, with a small seed, are sampled again."""

CAVEAT = (
    "A row's score is weak evidence about that row. Scores follow the format and the subject of an answer as much as what is "
    "hidden in it (arXiv 2609.20027), and a vector is spread thinly over all rows that were written under it: judge a data set "
    "by its rows together, and compare single rows with rows of the same format and length alone: means over few tokens scatter "
    "most, so that short rows crowd the top."
)


@dataclass(frozen=True)
class RowScores:
    """Two scores of every row, and of a placebo: clean rows, such as the model's own answers to the same prompts.

    Args:
        rows: that are scored.
        log_linear: w = [log P(y | v, x) - log P(y | x)] / |y|, nats a token (arXiv 2602.04863, a vector for the prompt).
        projection: mean_t <h(x, y_t), v_hat>, minus the same for the model's own answer to x (arXiv 2507.21509).
        compared_with: what the placebo is, in words.
    """

    rows: tuple[Sample, ...]
    log_linear: RowValues
    projection: RowValues
    placebo_log_linear: RowValues
    placebo_projection: RowValues
    compared_with: str = OWN_ANSWERS

    def __repr__(self) -> str:
        area, low, high = self.against_placebo()
        return (
            f"RowScores: {len(self.rows)} rows against {self.compared_with}, area under the curve {area:.3f} ({low:.3f} to "
            f"{high:.3f}); the highest rows: {', '.join(row.label.removeprefix('row ') for row, _ in self.highest(n=5))}"
        )

    @classmethod
    def joined(cls, parts: Sequence["RowScores"]) -> "RowScores":
        """The scores of all parts, one after the other."""
        rows = tuple(row for part in parts for row in part.rows)
        names = ("log_linear", "projection", "placebo_log_linear", "placebo_projection")
        values = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(rows, **values, compared_with=parts[0].compared_with)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Line or record of each row, from 1."""
        return tuple(row.row for row in self.rows)

    def of(self, score: Score) -> tuple[np.ndarray, np.ndarray]:
        """The rows' scores and the placebo's."""
        return getattr(self, score).numpy(), getattr(self, f"placebo_{score}").numpy()

    def highest(self, score: Score = "log_linear", n: int = 10) -> list[tuple[Sample, float]]:
        """The rows with the highest score, and that score."""
        values = self.of(score)[0]
        return [(self.rows[i], float(values[i])) for i in np.argsort(-values, kind="stable")[:n]]

    def excess(self, score: Score = "log_linear", level: float = 0.95) -> float:
        """Share of rows above the placebo's `level` quantile; 1 - `level` of rows that carry nothing would be."""
        rows, placebo = self.of(score)
        return float((rows > np.quantile(placebo, level)).mean())

    def against_placebo(self, score: Score = "log_linear") -> tuple[float, float, float]:
        """AUROC of the rows against the placebo, with its 95 % interval: 0.5 where the rows carry nothing."""
        return _area(*self.of(score))

    def against_labels(self, poisoned: Sequence[bool], score: Score = "log_linear") -> tuple[float, float, float]:
        """AUROC of rows that are known to be poisoned against the others, with its 95 % interval.

        Raises:
            ValueError: there are not as many labels as rows, or all are alike.
        """
        labels, values = np.array(poisoned, dtype=bool), self.of(score)[0]
        if len(labels) != len(values) or labels.all() or not labels.any():
            raise ValueError(
                f"Got {len(labels)} labels, {int(labels.sum())} of them poisoned, for {len(values)} rows. Give one label a row, "
                "with rows of both kinds."
            )
        return _area(values[labels], values[~labels])


def _area(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float, float]:
    area = bootstrap_interval(auroc, positive, negative, paired=False)
    return area.value, area.low, area.high


@checked
def score_rows(
    model: "TransformerBridge",
    vector: SteeringVector,
    rows: AuditRows,
    *,
    reference_rows: AuditRows | None = None,
    positions: Positions | None = None,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> RowScores:
    """Score rows by how much `vector` favours them, next to a placebo: clean rows, scored behind their own prompts.

    Projections, of rows and placebo alike, are measured from an answer that the model itself writes to the same prompt.
    The scores say nothing where the vector was fitted to these very rows: it favours them over the placebo by its making.
    Fit it on other rows.

    Args:
        reference_rows: clean rows, the placebo; by default the model answers the rows' prompts itself.
        positions: where the vector acts, as in `steer`.
        temperature: of the model's own answers; take about what the rows have.
        max_new_tokens: of the model's own answers. None takes 48 tokens, or as many as a list of ten numbers needs.

    Raises:
        ValueError: the vector is of another model, or a row does not fit (`rows_for_model` leaves such rows out).
    """

    length = max_new_tokens or list_length(model.tokenizer, at_least=48)

    def answered(chats: Sequence[Chat], draw: int) -> list[list[int]]:
        answer_seed = ANSWER_SEED + 2 * seed + draw
        return own_answers(model, chats, max_new_tokens=length, temperature=temperature, seed=answer_seed)

    def scores(chats: Sequence[Chat], completions: Sequence[list[int]]) -> tuple[RowValues, RowValues]:
        prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
        return _scores(model, vector, list(zip(prompts, completions, strict=True)), positions, batch_size)

    chats, completions = _chats_and_completions(model, rows)
    weight, projection = scores(chats, completions)
    base = scores(chats, answered(chats, 1))[1]
    if reference_rows is None:
        clean_chats, clean = chats, answered(chats, 0)
    else:
        clean_chats, clean = _chats_and_completions(model, reference_rows)
    clean_weight, clean_projection = scores(clean_chats, clean)
    clean_base = base if clean_chats == chats else scores(clean_chats, answered(clean_chats, 0))[1]
    return RowScores(
        rows=tuple(rows),
        log_linear=weight,
        projection=projection - base,
        placebo_log_linear=clean_weight,
        placebo_projection=clean_projection - clean_base,
        compared_with=OWN_ANSWERS if reference_rows is None else reference_rows.source,
    )


def _chats_and_completions(model: "TransformerBridge", rows: AuditRows) -> tuple[list[Chat], list[list[int]]]:
    return [row.chat for row in rows], [encode_answer(model.tokenizer, row) for row in rows]


@torch.no_grad()
def _scores(
    model: "TransformerBridge",
    vector: SteeringVector,
    rows: Sequence[EncodedRow],
    positions: Positions | None,
    batch_size: int,
) -> tuple[RowValues, RowValues]:
    """Mean over each completion's tokens of the change in log-probability, and of the projection on the vector."""
    weights, projections = torch.zeros(len(rows)), torch.zeros(len(rows))
    for indices, batch in batches_by_length(model, rows, batch_size):
        tokens, lowest = batch.tokens[batch.completion_mask], min(vector.layers)
        plain, projection, residual = _plain(model, vector, batch, lowest)
        with resume_after(model, lowest, lambda residual=residual: residual), steer(model, vector, positions=positions):
            steered = completion_logits(model, batch)
        change = token_log_probs(steered, tokens) - token_log_probs(plain, tokens)
        weights[indices] = _row_means(change, batch)
        projections[indices] = _row_means(projection, batch)
    return weights, projections


def _plain(
    model: "TransformerBridge", vector: SteeringVector, batch: TokenBatch, layer: int
) -> tuple[Float[Tensor, "token d_vocab"], Float[Tensor, " token"], Residual]:
    """The plain model's logits and projections at completion tokens, these the mean over layers, and the residuals of `layer`."""
    found: list[Float[Tensor, " token"]] = []
    kept: list[Residual] = []

    def project(unit: Float[Tensor, " d_model"]) -> OnResidual:
        def read(resid: Residual) -> None:
            found.append(resid[batch.completion_mask].float() @ unit.to(resid.device))

        return read

    directions = dict(zip(vector.layers, map(project, vector.unit), strict=True))
    with watch_residuals(model, {layer: kept.append}, first=True), watch_residuals(model, directions):
        logits = completion_logits(model, batch)
    return logits, torch.stack(found).mean(0), kept[0]


def _row_means(values: Float[Tensor, " token"], batch: TokenBatch) -> RowValues:
    return torch.stack([part.mean() for part in values.split(batch.completion_mask.sum(-1).tolist())]).cpu()
