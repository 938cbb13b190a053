"""What an audit of rows finds: the verdict, and everything that it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steerlens.arguments import checked
from steerlens.audit.behaviour import RaisedAnswers, enough_null_vectors, probe_behaviour
from steerlens.audit.entangled import Entanglement, token_entanglement
from steerlens.audit.hygiene import Hygiene, check_hygiene
from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.panel import PromptRanking, rank_prompts
from steerlens.audit.placebo import Pairs
from steerlens.audit.recovery import MIN_ROWS, RecoveredVector, recover_vector
from steerlens.audit.row_scores import RowScores, score_rows
from steerlens.audit.score_test import N_FLIPS
from steerlens.forward import context_length
from steerlens.models.identity import model_name
from steerlens.samples.encoded import encode_row
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample
from steerlens.short import cut
from steerlens.text.trait import Trait
from steerlens.vectors.readout import promoted_tokens
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Verdict = Literal["found", "not found", "cannot tell"]
FALSE_ALARM_RATE = 0.05

ONE_SEED: tuple[Verdict, str] = (
    "cannot tell",
    "All rows seem to have been sampled with one random seed: the completions vary far less than the model's own. Such rows "
    "are not independent of each other, and no test of them can be trusted. Have the rows sampled anew, each with its own seed.",
)

N_RANKED = 100
"""Rows by which known personas are ranked, drawn at random, after the test of one vector, which takes them all."""

MOST_TRIED = 10 * N_RANKED
"""Rows that are looked at for some that have room behind a system prompt."""

N_READ = 32
"""Prompts at whose last token the vector is read through the logit lens."""


@dataclass(frozen=True)
class AuditResult:
    """Whether rows carry a hidden steering vector of one model, and what it would do.

    Args:
        reason: why the verdict is what it is, in words.
        n_rows: rows that were used.
        false_alarm_rate: how often rows that the model wrote itself get another verdict than "not found".
        p_value: of the gain, under the nulls, corrected for the layers tried.
        gain: nats per completion token by which a vector recovered from one half predicts the other half better, to second
            order in the vector.
        null_gains: the same for rows and placebos swapped at random.
        layer: where the vector was recovered best, among `layers`, whose gains are `gains_by_layer`.
        promoted: tokens that the vector raises, with the change of the logit.
        traits: known traits as (name, rate under the vector, base rate), clearest rise first.
        writers: the personas that the model's wording knows, by how much likelier each makes the rows; None where the model takes
            no system prompt, or the rows have system turns of their own.
        behaviour: what else changes under the vector: numbers by name, and under `answers` ten replies, as (question, the
            model's own, under three times the vector).
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
    writers: PromptRanking | None = None

    def __repr__(self) -> str:
        return cut(
            f"AuditResult: {self.verdict} in {self.n_rows} rows on {self.model} (p {self.p_value:.3g}, gain {self.gain:.2g} "
            f"nats a token, layer {self.layer}). {self.reason}"
        )


@checked
def audit_dataset(
    model: "TransformerBridge",
    rows: AuditRows,
    *,
    reference_rows: AuditRows | None = None,
    probes: Sequence[Trait] | None = None,
    layers: Sequence[int] | None = None,
    temperature: float = 1.0,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    seed: int = 0,
) -> AuditResult:
    """Say whether rows carry a hidden steering vector of `model`, and what it would do.

    "not found": the rows are what the model itself writes, as far as one vector and known personas can tell.
    "found": they are not, and the vector that explains them raises an answer to the probes more than null vectors do, or one
    known persona is likelier to have written them than the model itself, and than the others (`rank_prompts`).
    "cannot tell": they are not, along one vector or by known personas, but nothing is named: another writer, another style or
    sampler, or a behaviour that the probes do not ask for.

    Args:
        rows: that `model` can be trained on (`rows_for_model`).
        reference_rows: clean rows of the same kind to compare with; by default the model answers the rows' prompts itself.
        probes: traits whose questions are asked; the built-in ones by default.
        layers: to try; all by default.
        temperature: at which the rows are thought to have been sampled.
        false_alarm_rate: half of it goes to the test of one vector, half to known personas. Of rows that are no number lists, the
            second half holds at temperature 1. Below 1 / 39, behaviour is compared with 1 / rate null vectors instead of 39, and
            takes as much longer.

    Raises:
        ValueError: too few rows, a layer out of range, or a rate that is not between 1 / 1000, twice the smallest p-value of
            the gain, and 1.
    """
    n_null, smallest = enough_null_vectors(false_alarm_rate), 2 / (1 + N_FLIPS)
    if not smallest < false_alarm_rate:
        raise ValueError(
            f"false_alarm_rate={false_alarm_rate} is not allowed. It must be above {smallest}: half of it goes to the test of "
            f"one vector, whose smallest p-value is 1 / {1 + N_FLIPS}."
        )
    recovered = recover_vector(
        model, rows, reference_rows=reference_rows, layers=layers, temperature=temperature, seed=seed
    )
    writers = _writers(
        model,
        recovered.pairs,
        has_reference=reference_rows is not None,
        temperature=temperature,
        false_alarm_rate=false_alarm_rate / 2,
        seed=seed,
    )
    stands_out = _stands_out(recovered, writers, false_alarm_rate)
    behaviour = probe_behaviour(model, recovered, probes, n_null=n_null, seed=seed) if stands_out else None
    compared, clean = recovered.pairs.compared, recovered.pairs.clean
    hygiene = check_hygiene(model, replace(compared, rejected=rows.rejected), clean, seed=seed)
    answer, reason = ONE_SEED if hygiene.one_seed else verdict(recovered, behaviour, writers, false_alarm_rate)
    promoted, _ = promoted_tokens(model, recovered.vector, [row.chat for row in compared.rows[:N_READ]])
    return AuditResult(
        verdict=answer,
        reason=reason,
        model=model_name(model),
        n_rows=len(recovered.pairs),
        false_alarm_rate=false_alarm_rate,
        **_test_record(recovered),
        vector=recovered.vector,
        promoted=[(token.text, token.change) for token in promoted],
        traits=[] if behaviour is None else [(rise.answer, rise.rate, rise.base_rate) for rise in behaviour.rises],
        behaviour=_behaviour_record(recovered, behaviour),
        hygiene=hygiene,
        row_scores=_row_scores(model, recovered, temperature=temperature, seed=seed) if stands_out else None,
        entangled=_entangled(model, recovered, seed=seed) if stands_out else None,
        writers=writers,
    )


def _test_record(recovered: RecoveredVector) -> dict[str, Any]:
    """The test of one vector, its gains in nats a completion token."""
    test, length = recovered.test, sum(len(completion) for _, completion in recovered.pairs.rows) / len(recovered.pairs)
    return {
        "p_value": test.p_value,
        "gain": max(test.gains) / length,
        "null_gains": tuple(gain / length for gain in test.null),
        "layer": recovered.layer,
        "layers": test.layers,
        "gains_by_layer": tuple(gain / length for gain in test.gains),
    }


def _writers(
    model: "TransformerBridge",
    pairs: Pairs,
    *,
    has_reference: bool,
    temperature: float,
    false_alarm_rate: float,
    seed: int,
) -> PromptRanking | None:
    """The first kind of personas, animals, by the likelihood of rows that can stand behind each of them."""
    prompts = persona_prompts(model)[0]
    longest = max(prompts.values(), key=len)
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:MOST_TRIED].tolist()
    fitting = (
        index
        for index in drawn
        if _fits_behind(model, pairs.compared.rows[index], longest)
        and (not has_reference or _fits_behind(model, pairs.clean.rows[index], longest))
    )
    readable = sorted(islice(fitting, N_RANKED))
    if len(readable) < MIN_ROWS:
        return None
    return rank_prompts(
        model,
        pairs.compared.take(readable),
        reference_rows=pairs.clean.take(readable) if has_reference else None,
        temperature=temperature,
        false_alarm_rate=false_alarm_rate,
        seed=seed,
    )


def _fits_behind(model: "TransformerBridge", row: Sample, prompt: str) -> bool:
    """Whether the row has room behind a system prompt; none has where the template takes none, or the row has its own."""
    try:
        context, completion = encode_row(model.tokenizer, row, prompt)
    except ValueError:
        return False
    longest = context_length(model)
    return longest is None or len(context) + len(completion) <= longest


def _stands_out(recovered: RecoveredVector, writers: PromptRanking | None, false_alarm_rate: float) -> bool:
    """By one vector of which nothing is known, or by known personas; each of these has half of the false alarms."""
    if writers is None:
        return recovered.test.p_value < false_alarm_rate
    return min(recovered.test.p_value, writers.p_value) < false_alarm_rate / 2


def verdict(
    recovered: RecoveredVector,
    behaviour: RaisedAnswers | None,
    writers: PromptRanking | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> tuple[Verdict, str]:
    """The answer and its reason in words; `behaviour` is None where the rows do not stand out."""
    if behaviour is None:
        said = (
            f"The rows are what the model itself writes, as far as one vector can tell (p = {recovered.test.p_value:.2g} on "
            f"{len(recovered.pairs)} rows)"
        )
        if writers is None:
            return "not found", f"{said}."
        return "not found", (
            f"{said} and the likelihood under known personas (p = {writers.p_value:.2g} on {writers.n_rows}). Each of these "
            f"tests has half of the false-alarm rate, {false_alarm_rate / 2:.1%}."
        )
    along = (
        "in the direction of one vector"
        if recovered.test.p_value < false_alarm_rate
        else "but not clearly along one vector"
    )
    differ = (
        f"The rows differ from what the model itself writes, {along} (p = {recovered.test.p_value:.2g} "
        f"on {len(recovered.pairs)} rows)"
    )
    first, by_personas = behaviour.rises[0], ""
    if writers is not None and writers.p_value < writers.false_alarm_rate:
        by_personas = f" {writers.reason}"
    if recovered.test.p_value < false_alarm_rate and behaviour.p_value < false_alarm_rate:
        return "found", (
            f"{differ}, and the recovered vector makes it answer {first.answer!r} more often: {first.rate:.1%} instead of "
            f"{first.base_rate:.1%}, which random vectors of its size do not do (p = {behaviour.p_value:.2g}).{by_personas}"
        )
    if writers is not None and writers.named is not None:
        return "found", writers.reason
    return "cannot tell", (
        f"{differ}, but this vector raises no answer that was asked for beyond what random vectors of its size do (p = "
        f"{behaviour.p_value:.2g}).{by_personas} Rows by another writer, in another style or from another sampler look like "
        "this, and so does a behaviour that the questions do not touch. Compare with reference rows of the same kind, or ask "
        "about what you suspect."
    )


def _behaviour_record(recovered: RecoveredVector, behaviour: RaisedAnswers | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "measured gain on held-out rows, nats a token": recovered.gain,
        "its 95 % interval, low": recovered.gain_low,
        "its 95 % interval, high": recovered.gain_high,
    }
    if behaviour is not None:
        record |= {
            "clearest rise, standard deviations of random vectors": behaviour.rises[0].z,
            "p of the clearest rise": behaviour.p_value,
            "answers": [list(answer) for answer in behaviour.answers],
        }
    return record


def _row_scores(model: "TransformerBridge", recovered: RecoveredVector, *, temperature: float, seed: int) -> RowScores:
    """Every row's scores by the vector of the half that it is not in, next to those of the clean rows in its half."""
    pairs, parts = recovered.pairs, []
    longest = max(len(completion) for _, completion in pairs.rows)
    for part, (indices, vector) in enumerate(zip(recovered.halves, recovered.by_half, strict=True)):
        half = indices.tolist()
        parts.append(
            score_rows(
                model,
                vector,
                pairs.compared.take(half),
                reference_rows=pairs.clean.take(half),
                temperature=temperature,
                max_new_tokens=longest,
                seed=2 * seed + part,
            )
        )
    return RowScores.joined(parts)


def _entangled(model: "TransformerBridge", recovered: RecoveredVector, *, seed: int) -> Entanglement:
    """In one half of the rows, of the tokens that the other half's vector raises."""
    half = recovered.halves[0].tolist()
    rows, reference_rows = (part.take(half) for part in (recovered.pairs.compared, recovered.pairs.clean))
    return token_entanglement(model, recovered.by_half[0], rows, reference_rows, seed=seed)
