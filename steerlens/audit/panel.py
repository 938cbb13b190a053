"""Who could have written these rows? A panel of candidate system prompts, by the rows' likelihood under each of them.

L_c = log q(y | c, x) - log q(y | x) of a row is its log-likelihood ratio under prompt c to the model without a prompt. Of rows
that were not filtered, it is what there is to know about who wrote them. `steerlens.audit.writer_evidence` sums it over rows, and
compares the sums with the model's own rows and with each other. A third comparison is with the answers that the model gives under
the best candidate: the rows may have been written by someone who is not among the candidates, and is merely most like that one.
They then favour it less over the next ones than its own answers do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.placebo import (
    ATTEMPTS,
    PLACEBO_SEED,
    RowFormat,
    answers_in_format,
    pair_with_placebo,
    pair_with_reference,
)
from steerlens.audit.prompt_ratios import Ratios, prompt_ratios
from steerlens.audit.ranking import FEWEST_CANDIDATES
from steerlens.audit.writer_evidence import SHARES, chances, evidence, relative_lead, responsibilities
from steerlens.checks import WrongInput, shown
from steerlens.forward import context_length
from steerlens.samples.encoded import encode_answer
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample
from steerlens.short import cut
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.trait import Trait

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

OWN_SEED = 2 * PLACEBO_SEED
N_ASKED = 200
"""Answers that the model gives under the best candidate, to the rows' prompts in turn."""

N_RIVALS = 3
"""Next candidates over which rows and own answers are to favour the best one."""

LEAST_AGREEMENT = 0.5
"""How much of the lead over the rivals that it has in its own answers the best candidate has to have in the rows. How often it is
named with that, rightly and wrongly, is in docs/guide/audit.md."""


@dataclass(frozen=True)
class PromptEvidence:
    """One candidate, and by how many nats it makes all rows likelier than no prompt does, or tells rows from clean ones.

    Args:
        share: of the rows, that it explains best, among a few.
    """

    name: str
    nats: float
    share: float


@dataclass(frozen=True)
class PromptRanking:
    """Candidate system prompts for who wrote some rows, and whether one of them is named.

    Args:
        candidates: the best first, each with the share of the rows that it explains best, among a few.
        p_value: of rows that the model wrote itself, the share at most in which the candidates have as much evidence.
        rival_p: the probability that another of the candidates wrote the rows, if one of them did, and each is as likely
            beforehand.
        agreement: the best one's lead over the next three in the rows, in units of its lead in answers that the model gives under
            it; 0 where it has none there. None where the p-values name nobody, so that the model was not asked.
        n_rows: that were read.
        false_alarm_rate: that `p_value` and `rival_p` are held against.
    """

    candidates: tuple[PromptEvidence, ...]
    p_value: float
    rival_p: float
    agreement: float | None
    n_rows: int
    false_alarm_rate: float

    @property
    def named(self) -> str | None:
        """The best candidate's name; None where it is none of these."""
        return None if self.agreement is None or self.agreement < LEAST_AGREEMENT else self.candidates[0].name

    @property
    def reason(self) -> str:
        """Why one is named, or none, in words."""
        best, second = self.candidates[:2]
        next_one = f"next {second.name!r}, {second.nats:.1f}"
        part = "" if best.share == 1 else f" as the writer of about {best.share:.0%} of them"
        said = f"{best.name!r} explains the {self.n_rows} rows best{part} ({best.nats:.1f} nats; {next_one})"
        if self.p_value >= self.false_alarm_rate:
            return f"{said}, as rows of the model's own would have it (p = {self.p_value:.2g})."
        differ = f"The rows are not the model's own (p = {self.p_value:.2g}). {said[0].upper()}{said[1:]}"
        if self.agreement is None:
            return f"{differ}, but others could have written them, too (p = {self.rival_p:.2g})."
        lead = f"over the next ones it has {self.agreement:.0%} of the lead that it has in its own answers"
        if self.named is None:
            return f"{differ}, but {lead}, so that the writer may be someone else."
        return f"{differ}, beyond the others (p = {self.rival_p:.2g}), and {lead}."

    def __repr__(self) -> str:
        return cut(f"PromptRanking: {self.named or 'none of these'}. {self.reason}")


@checked
def rank_prompts(
    model: "TransformerBridge",
    rows: AuditRows,
    candidates: Sequence[str | Trait] | None = None,
    *,
    reference_rows: AuditRows | None = None,
    temperature: float = 1.0,
    false_alarm_rate: float = 0.05,
    seed: int = 0,
) -> PromptRanking:
    """Rank candidate system prompts by how much likelier they make the rows, or say that it is none of these.

    A candidate may have written all rows, or a part of them beside the model itself.

    It costs a forward of every row for each candidate, twice as many where rows are paired with clean ones, and needs few rows:
    a hundred can do. Rows are thought to have been sampled one by one; copies of a row count as often as they are there.
    `recover_vector` compares rows with known vectors at hardly any cost, but to first order, and needs more rows.

    Args:
        rows: that `model` can be trained on (`rows_for_model`), without a system turn of their own.
        candidates: system prompts, or traits, whose prompts they are; at least four. By default the personas of the first
            kind that the model's wording knows, which are animals.
        reference_rows: clean rows of the same kind to pair with. Without them, pure number lists are paired with the model's own
            answers to their prompts, and other rows with none.
        temperature: at which the rows are thought to have been sampled, for answers of the model.
        false_alarm_rate: how often a candidate is named for rows that the model wrote itself, at most. It holds for rows that
            are paired, and for rows that were sampled at temperature 1 from the whole vocabulary.

    Raises:
        ValueError: no rows, fewer than four candidates, two of one name, a row with a system turn of its own, or one that is
            too long behind a candidate.
        WrongInput: a candidate is neither a text nor a trait.
    """
    panel = persona_prompts(model)[0] if candidates is None else _panel(candidates)
    if not len(rows):
        raise ValueError("There are no rows to rank prompts by. Give some.")
    names, prompts = list(panel), list(panel.values())
    form = RowFormat.of(model, list(rows))
    read, ours, theirs = _ratios(model, rows, reference_rows, form, prompts, temperature=temperature, seed=seed)
    return judged(
        names,
        ours,
        theirs,
        lambda leading: own_ratios(
            model, read, form, [prompts[index] for index in leading], temperature=temperature, seed=seed
        ),
        false_alarm_rate=false_alarm_rate,
    )


def judged(
    names: Sequence[str],
    ours: Ratios,
    theirs: Ratios | None,
    own: Callable[[list[int]], Float[Tensor, "answer leading"]],
    *,
    false_alarm_rate: float,
) -> PromptRanking:
    """The ranking that the ratios make; `own` is asked only where a name depends on them.

    Args:
        theirs: of the clean rows that rows are paired with, if any.
        own: from the numbers of the leading candidates to the ratios under them of answers that the model gives under the
            first.
    """
    by_share = evidence(ours, theirs)
    sums, shares = by_share.logsumexp(0), [SHARES[index] for index in by_share.argmax(0).tolist()]
    order: list[int] = sums.argsort(descending=True).tolist()
    (p_value, rival_p), agreement = chances(sums), None
    if max(p_value, rival_p) < false_alarm_rate:
        leading = order[: 1 + N_RIVALS]
        weights = responsibilities(ours, theirs, shares[order[0]])[:, order[0]]
        agreement = relative_lead(ours[:, leading], own(leading), weights)
    found = tuple(PromptEvidence(names[index], float(sums[index]), shares[index]) for index in order)
    return PromptRanking(found, p_value, rival_p, agreement, len(ours), false_alarm_rate)


def _panel(candidates: Sequence[str | Trait]) -> dict[str, str]:
    given = [candidates] if isinstance(candidates, str | Trait) else list(candidates)
    for index, one in enumerate(given):
        if not isinstance(one, str | Trait) or one == "":
            raise WrongInput(f"candidates[{index}] must be a system prompt or a Trait, got {shown(one)}.")
    panel = {one if isinstance(one, str) else one.name: one if isinstance(one, str) else one.prompt for one in given}
    if len(panel) < len(given) or len(panel) < FEWEST_CANDIDATES:
        raise ValueError(
            f"Got {len(given)} candidates with {len(panel)} names. Give at least {FEWEST_CANDIDATES} with names of their own: "
            "they are judged by each other. Traits of the same kind are good company for the one that you suspect."
        )
    return panel


def _ratios(
    model: "TransformerBridge",
    rows: AuditRows,
    reference_rows: AuditRows | None,
    form: RowFormat,
    prompts: Sequence[str],
    *,
    temperature: float,
    seed: int,
) -> tuple[list[Sample], Ratios, Ratios | None]:
    """The rows that were read, their ratios, and those of the clean rows that they are paired with, if any."""
    if reference_rows is None and form.lists is None:
        completions = [encode_answer(model.tokenizer, row)[: form.limit] for row in rows]
        return list(rows), prompt_ratios(model, list(rows), completions, prompts), None
    if reference_rows is not None:
        pairs = pair_with_reference(model, list(rows), list(reference_rows), seed=seed)
    else:
        pairs = pair_with_placebo(model, list(rows), temperature=temperature, seed=seed)
    clean = [completion for _, completion in pairs.placebo]
    fitting = _with_room(model, list(pairs.clean), clean, prompts)
    if not fitting:
        raise ValueError(
            f"None of the {len(pairs)} clean answers that rows are paired with has room behind the longest candidate. Give "
            "shorter candidates, or shorter rows."
        )
    compared, placebo = pairs.compared.take(fitting), pairs.clean.take(fitting)
    completions = [pairs.rows[index][1] for index in fitting] + [clean[index] for index in fitting]
    ours, theirs = prompt_ratios(model, [*compared, *placebo], completions, prompts).split(len(fitting))
    return list(compared), ours, theirs


def _with_room(
    model: "TransformerBridge", rows: Sequence[Sample], completions: Sequence[list[int]], prompts: Sequence[str]
) -> list[int]:
    """The numbers of the rows whose completion fits into the context behind the longest of the prompts."""
    limit = context_length(model)
    if limit is None or not rows:
        return list(range(len(rows)))

    def length(row: Sample, prompt: str) -> int:
        return len(encode_prompt(model.tokenizer, as_chat(row.prompt, prompt)))

    longest = max(prompts, key=lambda prompt: length(rows[0], prompt))
    return [at for at, row in enumerate(rows) if length(row, longest) + len(completions[at]) <= limit]


def own_ratios(
    model: "TransformerBridge",
    read: Sequence[Sample],
    form: RowFormat,
    prompts: Sequence[str],
    *,
    temperature: float,
    seed: int,
) -> Float[Tensor, "answer candidate"]:
    """Of answers to the rows' prompts, in the rows' format, that the model gives under the first of these prompts."""
    asked = list(islice(cycle(read), N_ASKED))
    answers = answers_in_format(
        model, asked, form, system_prompt=prompts[0], temperature=temperature, seed=OWN_SEED + seed * ATTEMPTS
    )
    samples, completions = [asked[index] for index in answers], [ids[: form.limit] for ids in answers.values()]
    fitting = _with_room(model, samples, completions, prompts)
    if not fitting:
        return torch.zeros(1, len(prompts))
    return prompt_ratios(model, [samples[at] for at in fitting], [completions[at] for at in fitting], prompts)
