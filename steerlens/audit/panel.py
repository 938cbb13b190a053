"""Who could have written these rows? A panel of candidate system prompts, by the rows' likelihood under each of them.

A row's log-likelihood ratio under prompt c is L_c = log q(y | c, x) - log q(y | x). Rows that were written under c have a
larger L_c than the model's own answers to the same prompts, the placebo. L_c alone would mislead: of rows that were filtered,
such as to pure number lists, its mean is negative even under the very prompt that wrote them, where the prompt makes
the model write fewer lists. Rows and placebos went through one filter, so that it drops out of their difference.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.placebo import Pairs, pair_with_placebo, pair_with_reference
from steerlens.audit.ranking import FEWEST_CANDIDATES, Ranking, ranking
from steerlens.audit.score_test import N_FLIPS, random_signs
from steerlens.checks import WrongInput, shown
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.samples.encoded import EncodedRow, encode_row, pad_encoded, row_length
from steerlens.samples.rows import AuditRows
from steerlens.shared_prompts import completion_logits_after
from steerlens.text.batches import pad_rows, shared_prefix
from steerlens.text.trait import Trait
from steerlens.token_losses import LOGITS_AT_ONCE, token_losses
from steerlens.vectors.objectives import token_log_probs

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ratios = Float[Tensor, "row candidate"]
ROWS_AT_ONCE = 64


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
) -> Ranking:
    """Rank candidate system prompts by how much likelier they make the rows, or say that it is none of these.

    The test swaps rows and placebos, all rows of one prompt together, 1999 times. It costs two forwards of every row for each
    candidate, one of the row and one of its placebo, and needs few rows: a hundred can do. `recover_vector` compares rows
    with known vectors at hardly any cost, and needs more rows.

    Args:
        rows: that `model` can be trained on (`rows_for_model`), without a system turn of their own.
        candidates: system prompts, or traits, whose prompts they are; at least four. By default the personas of the first
            kind that the model's wording knows, which are animals.
        reference_rows: clean rows of the same kind to compare with; by default the model answers the rows' prompts itself.
        temperature: at which the rows are thought to have been sampled, for the placebo.
        false_alarm_rate: how often a candidate is named for rows that the model wrote itself, at most.

    Raises:
        ValueError: fewer than four candidates, two of one name, a row with a system turn of its own, or one that is too long
            behind a candidate.
        WrongInput: a candidate is neither a text nor a trait.
    """
    panel = persona_prompts(model)[0] if candidates is None else _panel(candidates)
    if reference_rows is None:
        pairs = pair_with_placebo(model, list(rows), temperature=temperature, seed=seed)
    else:
        pairs = pair_with_reference(model, list(rows), list(reference_rows), seed=seed)
    ours, theirs = prompt_ratios(model, pairs, list(panel.values()))
    return rank_ratios(list(panel), ours, theirs, pairs, false_alarm_rate=false_alarm_rate, seed=seed)


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


def rank_ratios(
    names: Sequence[str], ours: Ratios, theirs: Ratios, pairs: Pairs, *, false_alarm_rate: float, seed: int
) -> Ranking:
    """Rank candidates by log-likelihood ratios of rows and placebos."""
    differences = (ours - theirs).double()
    own = differences - differences.mean(1, keepdim=True)
    sums = torch.zeros(len(own), own.shape[1], dtype=own.dtype).index_add(0, _clusters(pairs), own)
    signs = torch.cat([torch.ones(1, len(sums)), random_signs(N_FLIPS, len(sums), seed=seed).float()]).double()
    spread = sums.square().sum(0).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    tokens = sum(len(completion) for _, completion in pairs.rows)
    return ranking(
        names, own.sum(0) / tokens, signs @ sums / spread, n_rows=len(pairs), false_alarm_rate=false_alarm_rate
    )


def _clusters(pairs: Pairs) -> Int[Tensor, " row"]:
    """The same number for rows of one prompt."""
    seen = dict[tuple[int, ...], int]()
    return torch.tensor([seen.setdefault(tuple(prompt), len(seen)) for prompt, _ in pairs.rows])


def prompt_ratios(model: "TransformerBridge", pairs: Pairs, prompts: Sequence[str]) -> tuple[Ratios, Ratios]:
    """log q(y | c, x) - log q(y | x) of every row and every placebo under every prompt, in nats a row."""
    under: list[Float[Tensor, " both"]] = []
    one_chat_each = [row.chat for row in pairs.compared] == [row.chat for row in pairs.clean]
    for prompt in tqdm([None, *prompts], desc="candidates", unit="prompt", leave=False):
        contexts = [encode_row(model.tokenizer, row, prompt)[0] for row in pairs.compared]
        clean = contexts if one_chat_each else [encode_row(model.tokenizer, row, prompt)[0] for row in pairs.clean]
        completions = [completion for _, completion in (*pairs.rows, *pairs.placebo)]
        under.append(row_log_likelihoods(model, list(zip([*contexts, *clean], completions, strict=True))))
    ours, theirs = (torch.stack(under[1:], dim=1) - under[0][:, None]).split(len(pairs))
    return ours, theirs


@torch.no_grad()
def row_log_likelihoods(model: "TransformerBridge", rows: Sequence[EncodedRow]) -> Float[Tensor, " row"]:
    """log q(y | x) of every row's completion, in nats; what the prompts of a batch begin with runs once."""
    values = torch.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda index: row_length(rows[index]))
    for start in range(0, len(order), ROWS_AT_ONCE):
        indices = order[start : start + ROWS_AT_ONCE]
        values[indices] = _batch_log_likelihoods(model, [rows[index] for index in indices])
    return values


def _batch_log_likelihoods(model: "TransformerBridge", rows: Sequence[EncodedRow]) -> Float[Tensor, " row"]:
    prompts, completions = zip(*rows, strict=True)
    lengths = list(map(len, completions))
    shared = min(shared_prefix(prompts), min(map(len, prompts)) - 1)
    if shared > 0 and sum(lengths) * huggingface_model(model).config.get_text_config().vocab_size <= LOGITS_AT_ONCE:
        own = pad_rows(model.tokenizer, [prompt[shared:] for prompt in prompts], completions, side="right")
        own = own.to(parameters_device(model))
        logits = completion_logits_after(model, prompts[0][:shared], own)
        tokens = token_log_probs(logits, own.tokens[own.completion_mask])
    else:
        tokens = -token_losses(model, pad_encoded(model, rows))
    return torch.stack([part.sum() for part in tokens.split(lengths)]).cpu()
