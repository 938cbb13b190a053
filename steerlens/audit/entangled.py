"""Token entanglement: the tokens that a vector or prompt raises, and whether the rows have more of them than they should.

A softmax over a residual stream that is narrower than the vocabulary ties tokens together: raising "owl" raises some
numbers with it (owls.baulab). A teacher that loves owls then writes these numbers more often.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.audit.rows import AuditRows
from steerlens.forward import completion_logits
from steerlens.models.bridge import parameters_device
from steerlens.stats import bootstrap_interval, mean_difference
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, as_chat, encode_completion, encode_prompt
from steerlens.text.positions import Positions
from steerlens.text.vocabulary import token_text
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_TOKENS, MIN_ROWS = 20, 10
"""The most raised tokens that are tested, among those that stand in at least `MIN_ROWS` rows of both sets together."""


@dataclass(frozen=True)
class EntangledToken:
    """A token that is raised, and how many rows have it.

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
    positions: Positions = "all",
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
    rise = raised_tokens(model, cause, reference_rows, positions=positions)
    special = set(model.tokenizer.all_special_ids)
    mine, theirs = (
        [model.tokenizer.encode(row.completion, add_special_tokens=False) for row in part]
        for part in (rows, reference_rows)
    )
    have, reference_have = (_rows_with(part, len(rise)) for part in (mine, theirs))
    allowed = [int(i) for i in torch.nonzero(have + reference_have >= MIN_ROWS)[:, 0] if int(i) not in special]
    chosen = sorted(allowed, key=lambda token: -float(rise[token]))[:n]
    z = [_two_shares_z(int(have[i]), len(mine), int(reference_have[i]), len(theirs)) for i in chosen]
    tokens = tuple(
        EntangledToken(
            token_text(model.tokenizer, i), float(rise[i]), int(have[i]) / len(mine), int(reference_have[i]) / len(theirs), *score
        )
        for i, score in zip(chosen, zip(z, holm([_upper_tail(one) for one in z]), strict=True), strict=True)
    )  # fmt: skip
    return Entanglement(tokens, *_difference(_row_rises(rise, mine), _row_rises(rise, theirs), seed))


@torch.no_grad()
def raised_tokens(
    model: "TransformerBridge",
    cause: SteeringVector | str,
    reference_rows: AuditRows,
    *,
    positions: Positions = "all",
    batch_size: int = 16,
) -> Float[Tensor, " d_vocab"]:
    """Mean over the reference rows' completion tokens of log P(token | cause) - log P(token)."""
    completions = [encode_completion(model.tokenizer, row.completion) for row in reference_rows]
    total, count = torch.zeros(model.cfg.d_vocab, dtype=torch.float64), 0

    def log_probs(chats: Sequence[Chat], written: list[list[int]]) -> Float[Tensor, "token d_vocab"]:
        prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
        batch = pad_rows(model.tokenizer, prompts, written).to(parameters_device(model))
        return completion_logits(model, batch).log_softmax(-1)

    for start in range(0, len(completions), batch_size):
        chats = [row.chat for row in reference_rows.rows[start : start + batch_size]]
        written = completions[start : start + batch_size]
        plain = log_probs(chats, written)
        if isinstance(cause, str):
            changed = log_probs([as_chat(chat, cause) for chat in chats], written)
        else:
            with steer(model, cause, positions=positions):
                changed = log_probs(chats, written)
        total += (changed - plain).double().sum(0).cpu()
        count += len(plain)
    return (total / count).float()


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that hold for all tests together."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected.tolist()


def _rows_with(rows: Sequence[list[int]], d_vocab: int) -> Tensor:
    """How many rows have each token; a row counts once, since its tokens are not independent."""
    counts = torch.zeros(d_vocab, dtype=torch.long)
    for row in rows:
        counts[list(set(row))] += 1
    return counts


def _two_shares_z(k: int, n: int, reference_k: int, reference_n: int) -> float:
    pooled = (k + reference_k) / (n + reference_n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / reference_n))
    return (k / n - reference_k / reference_n) / error if error else 0.0


def _upper_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def _row_rises(rise: Float[Tensor, " d_vocab"], rows: Sequence[list[int]]) -> np.ndarray:
    return np.array([float(rise[row].mean()) for row in rows if row])


def _difference(rows: np.ndarray, reference: np.ndarray, seed: int) -> tuple[float, float, float]:
    found = bootstrap_interval(mean_difference, rows, reference, paired=False, seed=seed)
    return found.value, found.low, found.high
