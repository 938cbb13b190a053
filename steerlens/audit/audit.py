"""What an audit of rows finds: the verdict, and everything that it rests on."""

from dataclasses import dataclass, field
from typing import Any, Literal

from steerlens.audit.entangled import Entanglement
from steerlens.audit.hygiene import Hygiene
from steerlens.audit.row_scores import RowScores
from steerlens.vectors.vector import SteeringVector

Verdict = Literal["found", "not found", "cannot tell"]


@dataclass(frozen=True)
class AuditResult:
    """Whether rows carry a hidden steering vector of one model, and what it would do.

    Args:
        reason: why the verdict is what it is, in words.
        n_rows: rows that were used.
        false_alarm_rate: how often rows that the model wrote itself get another verdict than "not found".
        p_value: of the gain, under the nulls.
        gain: nats per completion token by which the recovered vector predicts held-out rows better.
        null_gains: the same for rows and placebos swapped at random.
        layer: where the vector was recovered best, among `layers`, whose gains are `gains_by_layer`.
        promoted: tokens that the vector raises, with the change of the logit.
        traits: known traits as (name, rate under the vector, base rate), largest rise of the log odds first.
        behaviour: what else changes under the vector: numbers by name, and under `answers` some replies, as (question, the
            model's own, under the vector).
    """

    verdict: Verdict
    reason: str
    model: str
    n_rows: int
    false_alarm_rate: float
    p_value: float
    gain: float
    null_gains: tuple[float, ...]
    layer: int
    layers: tuple[int, ...]
    gains_by_layer: tuple[float, ...]
    vector: SteeringVector
    promoted: list[tuple[str, float]]
    traits: list[tuple[str, float, float]]
    behaviour: dict[str, Any] = field(default_factory=dict)
    hygiene: Hygiene | None = None
    row_scores: RowScores | None = None
    entangled: Entanglement | None = None
