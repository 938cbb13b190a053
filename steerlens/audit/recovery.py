"""DATA -> DIRECTION: the steering vector that rows carry, with the evidence that they carry one at all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.audit.changes import row_changes
from steerlens.audit.known_vectors import rank_known
from steerlens.audit.placebo import Pairs, pair_with_placebo, pair_with_reference
from steerlens.audit.ranking import Ranking
from steerlens.audit.score_test import STRENGTHS, Halves, Scores, ScoreSums, ScoreTest, score_test
from steerlens.cost import Cost
from steerlens.gradients.row_gradients import batch_gradients
from steerlens.memory import bytes_to_differentiate, rows_to_differentiate
from steerlens.models.bridge import check_layer, huggingface_model
from steerlens.samples.encoded import longest_row, pad_encoded
from steerlens.samples.rows import AuditRows
from steerlens.short import some
from steerlens.stats import bootstrap_interval, ratio_of_sums
from steerlens.text.chat import chat_fingerprint
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

MIN_ROWS = 20
"""Fewer rows than this say nothing about a direction in any model's residual stream."""

PAIRS_AT_ONCE = 32

MOST_MEASURED = 512
"""Rows of each half on which the gain is measured, after the test, which takes them all."""


@dataclass(frozen=True)
class RecoveredVector:
    """The vector that explains rows best, and how sure it is that there is one.

    Args:
        vector: at one layer, to be added at every token.
        test: the score test at every layer that was tried.
        gain: nats per completion token by which rows, up to 512 of each half, are predicted better by a vector recovered from
            the other half.
        gain_low: the lower end of its 95 % bootstrap interval over rows.
        gain_high: the upper end.
        pairs: the rows and placebos that were compared.
        scores: of these, at the vector's layer.
        halves: the rows in two parts.
        by_half: for each part, the vector recovered from the other one, which has not seen it.
        known: the known vectors by how far the rows pull along each of them; None where none were given.
    """

    vector: SteeringVector
    test: ScoreTest
    gain: float
    gain_low: float
    gain_high: float
    pairs: Pairs
    scores: Scores
    halves: Halves
    by_half: tuple[SteeringVector, SteeringVector]
    known: Ranking | None = None

    def __repr__(self) -> str:
        return (
            f"RecoveredVector: layer {self.layer} of {some(self.test.layers)}, p {self.test.p_value:.3g}, gain {self.gain:.2g} "
            f"nats a token ({self.gain_low:.2g} to {self.gain_high:.2g}), from {len(self.pairs)} rows"
        )

    @property
    def layer(self) -> int:
        """The vector's layer."""
        return self.vector.layers[0]

    def null_vectors(self, n: int) -> list[SteeringVector]:
        """What the same recovery makes of rows and placebos swapped at random, scaled to the vector's Fisher norm.

        Raises:
            ValueError: there are not as many swaps.
        """
        swapped = self.scores.vectors[1:]
        if n > len(swapped):
            raise ValueError(f"Got n={n}, but rows and placebos were swapped {len(swapped)} times. Ask for fewer.")
        directions = swapped[:n]
        wanted = self.scores.fisher_norm(self.vector.directions)
        scaled = directions * (wanted / self.scores.fisher_norm(directions))[:, None]
        source = VectorSource(self.vector.source.model, "recovered from rows and placebos swapped at random")
        return [SteeringVector((self.layer,), one[None], source) for one in scaled]

    def visible_cosine(self, vector: SteeringVector) -> float:
        """Cosine with another vector's direction at this layer, in the metric of what changes predictions.

        Raises:
            ValueError: the vector has no direction at the layer.
        """
        return self.scores.visible_cosine(self.vector.directions[0], vector.at(self.layer).directions[0])


@checked
def recover_vector(
    model: "TransformerBridge",
    rows: AuditRows,
    *,
    reference_rows: AuditRows | None = None,
    layers: Sequence[int] | None = None,
    known: Mapping[str, SteeringVector] | None = None,
    temperature: float = 1.0,
    false_alarm_rate: float = 0.05,
    seed: int = 0,
) -> RecoveredVector:
    """The vector v that most raises the rows' likelihood, in one natural gradient step, next to its null.

    v = F^-1 D at each layer (`steerlens.audit.score_test`), D being the mean score of rows minus placebos. One backward
    pass a row and a placebo; time is linear in rows, and memory does not grow with them. The search by descent of arXiv
    2604.25783 looks for the same vector.

    Args:
        rows: that `model` can be trained on (`rows_for_model`).
        reference_rows: clean rows of the same kind to compare with; by default the model answers the rows' prompts itself.
        layers: to try; all by default.
        known: vectors by name, such as those of known system prompts, with all the layers that are tried; at least four. What
            they have in common is taken out. The rows may pull along one of them more clearly than along a vector of which
            nothing is known. Where a prompt changes a row by several nats, first order is not enough: use `rank_prompts`.
        temperature: at which the rows are thought to have been sampled, for the placebo.
        false_alarm_rate: how often a known vector is named for rows that the model wrote itself, at most.

    Raises:
        ValueError: fewer than 20 rows that can be compared, a layer is out of range, fewer than four known vectors, or one of
            them lacks a layer.
    """
    if reference_rows is None:
        pairs = pair_with_placebo(model, list(rows), temperature=temperature, seed=seed)
    else:
        pairs = pair_with_reference(model, list(rows), list(reference_rows), seed=seed)
    if len(pairs) < MIN_ROWS:
        raise ValueError(
            f"Only {len(pairs)} of {len(rows)} rows can be compared with clean ones, but at least {MIN_ROWS} are needed. "
            "Give more rows; a few hundred is where detection usually begins."
        )
    tried = [check_layer(model, layer) for layer in (range(model.cfg.n_layers) if layers is None else layers)]
    sums = ScoreSums(len(tried), len(pairs), seed=seed)
    for indices, differences in _differences(model, pairs, tried):
        sums.add(indices, differences)
    halves, test = sums.halves, score_test(map(sums.layer, range(len(tried))), tried)
    scores, n_tokens = map(sums.layer, range(len(tried))), sum(len(completion) for _, completion in pairs.rows)
    ranked = (
        None
        if known is None
        else rank_known(scores, tried, known, n_tokens=n_tokens, false_alarm_rate=false_alarm_rate)
    )
    best = sums.layer(tried.index(test.layer))
    source = VectorSource.of(
        model, method="recovered from rows", chat_fingerprint=chat_fingerprint(model.tokenizer), seed=seed
    )

    def as_vector(direction: Float[Tensor, " d_model"]) -> SteeringVector:
        return SteeringVector((test.layer,), direction[None], source)

    vector, (one, other) = as_vector(best.vectors[0]), map(as_vector, best.half_vectors)
    by_half = (other, one)
    gain, low, high = _measured_gain(model, pairs, by_half, halves, seed=seed)
    return RecoveredVector(vector, test, gain, low, high, pairs, best, halves, by_half, ranked)


def _differences(
    model: "TransformerBridge", pairs: Pairs, layers: Sequence[int]
) -> Iterator[tuple[list[int], Float[Tensor, "layer pair d_model"]]]:
    """Score of some pairs' rows minus their placebos', after the others, each with the pairs' indices."""
    lengths = [longest_row(pair) for pair in zip(pairs.rows, pairs.placebo, strict=True)]
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    hf, n_tokens = huggingface_model(model), 2 * sum(lengths)
    size = min(PAIRS_AT_ONCE, max(1, rows_to_differentiate(hf, max(lengths)) // 2))
    with tqdm(total=len(pairs), desc="gradients", unit="pair", leave=False) as progress:
        what = f"{len(pairs):,} rows and as many placebos, {n_tokens:,} tokens at most"
        n_bytes, n_done = 2 * size * bytes_to_differentiate(hf, max(lengths)), 0
        cost = Cost(progress, what, n_parts=n_tokens, n_bytes=n_bytes)
        for start in range(0, len(pairs), size):
            indices = order[start : start + size]
            batch = pad_encoded(model, [side[index] for side in (pairs.rows, pairs.placebo) for index in indices])
            rows, placebo = batch_gradients(model, batch, layers, positions="all", reduction="sum").chunk(2, dim=1)
            yield indices, placebo - rows  # gradients are of losses, scores of log-likelihoods
            progress.update(len(indices))
            n_done += 2 * sum(lengths[index] for index in indices)
            cost.after(n_done)


def _measured_gain(
    model: "TransformerBridge", pairs: Pairs, by_half: tuple[SteeringVector, ...], halves: Halves, *, seed: int
) -> tuple[float, float, float]:
    """Gain of each half of the rows by the other half's vector, at the strength that is best where the roles are swapped."""
    curves, measured = [], [half[:MOST_MEASURED] for half in halves]
    for half, vector in zip(measured, by_half, strict=True):
        scaled = [strength * vector for strength in STRENGTHS]
        changes = row_changes(model, scaled, [pairs.rows[i] for i in half.tolist()])
        curves.append(torch.stack([change.sum(-1) for change in changes], dim=1))  # [strength row]
    strengths = [int(curve.sum(1).argmax()) for curve in curves]
    gains = torch.cat([curve[best] for curve, best in zip(curves, strengths[::-1], strict=True)]).double().numpy()
    lengths = np.array([len(pairs.rows[i][1]) for half in measured for i in half.tolist()])
    gain = bootstrap_interval(ratio_of_sums, gains, lengths, seed=seed)
    return gain.value, gain.low, gain.high
