"""Token entanglement: the tokens that a vector or prompt raises, and whether the rows have more of them than they should.

A softmax over a residual stream that is narrower than the vocabulary ties tokens together: raising "owl" raises some
numbers with it (owls.baulab). A teacher that loves owls then writes these numbers more often.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.forward import completion_logits
from steerlens.models.bridge import parameters_device
from steerlens.samples.encoded import encode_answer
from steerlens.samples.rows import AuditRows
from steerlens.stats import bootstrap_interval, mean_difference
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.text.number_lists import digits_join, number_tokens
from steerlens.text.positions import Positions
from steerlens.text.vocabulary import token_text
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

BATCH_SIZE = 16
N_PLACES = 3
"""Tokens of a number that are told apart by their place; later ones count as the last."""

N_TOKENS, MIN_ROWS = 20, 10
"""The most raised tokens that are tested, among those that stand in at least `MIN_ROWS` rows of both sets together."""


@dataclass(frozen=True)
class EntangledToken:
    """A token or number that is raised, and how many rows have it.

    Args:
        rise: mean change of its log-probability, nats.
        share, reference_share: of the rows, and of the reference rows, that have the token.
        z: (share - reference_share) / its standard error under equal shares.
        p: one-sided, corrected for all tokens tested (Holm).
    """

    text: str
    rise: float
    share: float
    reference_share: float
    z: float
    p: float


@dataclass(frozen=True)
class Entanglement:
    """Whether rows have more of the raised tokens than reference rows have.

    `tilt` is the mean rise over a row's tokens, of the rows minus of the reference, in nats, with its 95 % bootstrap
    interval over rows: one number for all tokens together.
    """

    tokens: tuple[EntangledToken, ...]
    tilt: float
    tilt_low: float
    tilt_high: float

    def __repr__(self) -> str:
        first = min(self.tokens, key=lambda token: token.p, default=None)
        clearest = "" if first is None else f"; the clearest token is {first.text!r} (p {first.p:.2g})"
        return (
            f"Entanglement: rows are tilted by {self.tilt:.3f} nats a token toward {len(self.tokens)} raised tokens "
            f"({self.tilt_low:.3f} to {self.tilt_high:.3f}){clearest}"
        )


@checked
def token_entanglement(
    model: "TransformerBridge",
    cause: SteeringVector | str,
    rows: AuditRows,
    reference_rows: AuditRows,
    *,
    positions: Positions | None = None,
    n: int = N_TOKENS,
    seed: int = 0,
) -> Entanglement:
    """Are the tokens that `cause` raises over-represented in `rows`?

    Which tokens are raised is read off the reference rows alone, so that choosing them does not favour the rows. A
    vector that was fitted to the rows does: give rows that it has not seen.

    Args:
        cause: a candidate vector, or a candidate system prompt.
        reference_rows: rows without it, best the model's own answers to the same prompts.
    """
    rises = Rises(model, cause, reference_rows, positions)
    special = set(model.tokenizer.all_special_ids)
    mine, theirs = (
        [pieces(model.tokenizer, encode_answer(model.tokenizer, replace(row, finished=False))) for row in part]
        for part in (rows, reference_rows)
    )
    have, reference_have = (Counter(piece for row in part for piece in set(row)) for part in (mine, theirs))
    often = sorted(piece for piece, count in (have + reference_have).items() if count >= MIN_ROWS)
    chosen = sorted((piece for piece in often if special.isdisjoint(piece)), key=lambda piece: -rises.of(piece))[:n]
    z = [_two_shares_z(have[piece], len(mine), reference_have[piece], len(theirs)) for piece in chosen]
    tokens = tuple(
        EntangledToken(
            _text(model.tokenizer, piece), rises.of(piece), have[piece] / len(mine), reference_have[piece] / len(theirs), *score
        )
        for piece, score in zip(chosen, zip(z, holm([_upper_tail(one) for one in z]), strict=True), strict=True)
    )  # fmt: skip
    return Entanglement(tokens, *_difference(rises.by_row(mine), rises.by_row(theirs), seed))


Piece = tuple[int, ...]


def _text(tokenizer: Any, piece: Piece) -> str:
    return "".join(token_text(tokenizer, token) for token in piece)


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[Piece]:
    """What is counted of a completion: each number as a whole, whatever tokens it is written with, and every other token.

    Where digits are written one by one, nearly every row has every digit, so digits would tell nothing.
    """
    if not digits_join(tokenizer):
        return [(token,) for token in ids]
    numbers, found = set(number_tokens(tokenizer)), list[Piece]()
    for in_number, run in itertools.groupby(ids, key=numbers.__contains__):
        whole = tuple(run)
        one = in_number and tokenizer.decode(whole).strip().isdigit()
        found += [whole] if one else [(token,) for token in whole]
    return found


class Rises:
    """How much more likely a cause makes every token and every number, in the places of the reference rows.

    A number of several tokens rises by the sum over its tokens, each measured at tokens in the same place of a number.
    """

    @torch.no_grad()
    def __init__(
        self, model: "TransformerBridge", cause: SteeringVector | str, rows: AuditRows, positions: Positions | None
    ) -> None:
        joined = digits_join(model.tokenizer)
        places = [0, *range(1, N_PLACES + 1)] if joined else [0]
        totals = torch.zeros(len(places), model.cfg.d_vocab, dtype=torch.float64)
        counts = torch.zeros(len(places), dtype=torch.long)
        for written, change in _changes(model, cause, rows, positions):
            place = torch.tensor(_places(model.tokenizer, written) if joined else [0] * len(change))
            totals.index_add_(0, place, change.double())
            counts += torch.bincount(place, minlength=len(places))
        self.mean = (totals.sum(0) / counts.sum()).float()
        by_place = totals / counts[:, None].clamp(min=1)
        self._by_place = torch.where(counts[:, None] > 0, by_place, self.mean.double()).float()

    def of(self, piece: Piece) -> float:
        """The rise of a token or number, in nats."""
        if len(piece) == 1:
            return float(self.mean[piece[0]])
        return float(sum(self._by_place[min(place, N_PLACES), token] for place, token in enumerate(piece, 1)))

    def by_row(self, rows: Sequence[Sequence[Piece]]) -> np.ndarray:
        """The mean rise over the pieces of each row that has any."""
        return np.array([np.mean([self.of(piece) for piece in row]) for row in rows if row])


def _places(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[int]:
    """For every token of the rows its place in a number, 1, 2, 3 (or later), and 0 outside of numbers."""
    return [
        min(place, N_PLACES) if len(piece) > 1 else 0
        for ids in rows
        for piece in pieces(tokenizer, ids)
        for place in range(1, len(piece) + 1)
    ]


def _changes(
    model: "TransformerBridge", cause: SteeringVector | str, rows: AuditRows, positions: Positions | None
) -> Iterator[tuple[list[list[int]], Float[Tensor, "token d_vocab"]]]:
    """Completions in batches, and log P(token | cause) - log P(token) at every token of theirs."""
    completions = [encode_answer(model.tokenizer, row) for row in rows]

    def log_probs(chats: Sequence[Chat], written: list[list[int]]) -> Float[Tensor, "token d_vocab"]:
        prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
        batch = pad_rows(model.tokenizer, prompts, written).to(parameters_device(model))
        return completion_logits(model, batch).log_softmax(-1)

    for start in range(0, len(completions), BATCH_SIZE):
        chats = [row.chat for row in rows.rows[start : start + BATCH_SIZE]]
        written = completions[start : start + BATCH_SIZE]
        plain = log_probs(chats, written)
        if isinstance(cause, str):
            changed = log_probs([as_chat(chat, cause) for chat in chats], written)
        else:
            with steer(model, cause, positions=positions):
                changed = log_probs(chats, written)
        yield written, (changed - plain).cpu()


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that hold for all tests together."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected.tolist()


def _two_shares_z(k: int, n: int, reference_k: int, reference_n: int) -> float:
    pooled = (k + reference_k) / (n + reference_n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / reference_n))
    return (k / n - reference_k / reference_n) / error if error else 0.0


def _upper_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def _difference(rows: np.ndarray, reference: np.ndarray, seed: int) -> tuple[float, float, float]:
    found = bootstrap_interval(mean_difference, rows, reference, paired=False, seed=seed)
    return found.value, found.low, found.high
