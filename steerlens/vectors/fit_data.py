"""What a fit is made of: completions of the prompted model, and its predictions at each of their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import completion_logits, completion_logits_after, generate
from steerlens.models import parameters_device
from steerlens.prompts.chat import Chat, TokenBatch, as_chat, encode_prompt, pad_rows
from steerlens.residuals.stream import is_watched
from steerlens.vectors.config import FitConfig
from steerlens.vectors.objectives import Targets, token_loss

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class FitRows:
    """Rows without the prompt, and the prompted model's predictions at each completion token.

    `targets` has the order of `completion_logits`: row after row.
    """

    batch: TokenBatch
    targets: Targets

    @property
    def row_of_token(self) -> Tensor:
        """The row that each target belongs to."""
        return self.batch.prediction_mask.nonzero()[:, 0].cpu()


@dataclass(frozen=True)
class FitData:
    """Rows for the gradient, for choices and for the reported numbers, in batches; their questions are distinct.

    `coarsening` is the share of KL(prompted || plain) that targets of the likeliest tokens hide, measured on the
    first batch of held-out rows; 0 where targets are whole.
    """

    train: tuple[FitRows, ...]
    validation: tuple[FitRows, ...]
    heldout: tuple[FitRows, ...]
    train_questions: list[str | Chat]
    coarsening: float

    @classmethod
    def sample(
        cls, model: "TransformerBridge", prompt: str, questions: Sequence[str | Chat], config: FitConfig
    ) -> "FitData":
        """Let the prompted model answer the questions, and prepare the rows.

        Raises:
            ValueError: too few questions, or one that cannot be rendered.
        """
        if len(questions) < config.n_rows:
            raise ValueError(
                f"Got {len(questions)} different questions, but the fit needs {config.n_rows} "
                f"({config.n_train} + {config.n_validation} + {config.n_heldout}). Give more, or a smaller FitConfig."
            )
        questions = questions[: config.n_rows]
        completions = generate(
            model,
            [as_chat(question, prompt) for question in questions],
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
        )
        rows = [
            (encode_prompt(model.tokenizer, as_chat(q, prompt)), encode_prompt(model.tokenizer, as_chat(q)), completion)
            for q, completion in zip(questions, completions, strict=True)
        ]
        fitted, chosen = config.n_train, config.n_train + config.n_validation
        parts = [_in_batches(part, config) for part in (rows[:fitted], rows[fitted:chosen], rows[chosen:])]
        train, validation, heldout = (
            tuple(prepare_rows(model, *b, top_k=config.top_k) for b in part) for part in parts
        )
        coarsening = 0.0 if heldout[0].targets.kept is None else _coarsening(model, parts[2][0], heldout[0])
        return cls(train, validation, heldout, list(questions[:fitted]), coarsening)


Ids = list[list[int]]


def _in_batches(
    rows: Sequence[tuple[list[int], list[int], list[int]]], config: FitConfig
) -> list[tuple[Ids, Ids, Ids]]:
    """Prompted, plain and completion tokens of each batch, rows of like length together."""
    by_length = sorted(rows, key=lambda row: len(row[1]) + len(row[2]))
    starts = range(0, len(rows), config.batch_size)
    return [
        tuple(map(list, zip(*by_length[start : start + config.batch_size], strict=True)))  # pyright: ignore[reportReturnType]
        for start in starts
    ]


@torch.no_grad()
def prepare_rows(
    model: "TransformerBridge",
    prompted: Ids,
    plain: Ids,
    completions: Ids,
    *,
    top_k: int,
) -> FitRows:
    """Rows without the prompt, with the prompted model's predictions at every completion token."""
    batch = pad_rows(model.tokenizer, plain, completions).to(parameters_device(model))
    sampled = batch.tokens[batch.completion_mask]
    return FitRows(batch, Targets.of(_prompted_logits(model, prompted, completions), sampled, top_k=top_k))


def _prompted_logits(model: "TransformerBridge", prompted: Ids, completions: Ids) -> Float[Tensor, "token d_vocab"]:
    """Logits at completion tokens; what all rows begin with, the system prompt, is run once for all of them."""
    shared = 0 if is_watched(model) else min(_shared_prefix(prompted), min(map(len, prompted)) - 1)
    own = pad_rows(model.tokenizer, [row[shared:] for row in prompted], completions, side="right")
    own = own.to(parameters_device(model))
    return completion_logits_after(model, prompted[0][:shared], own) if shared > 0 else completion_logits(model, own)


def _shared_prefix(rows: Ids) -> int:
    """Number of tokens with which all rows begin."""
    first, last = min(rows), max(rows)
    return next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


@torch.no_grad()
def _coarsening(model: "TransformerBridge", ids: tuple[Ids, Ids, Ids], rows: FitRows) -> float:
    logits = completion_logits(model, rows.batch)
    whole = Targets(_prompted_logits(model, ids[0], ids[2]).log_softmax(-1), None, rows.targets.sampled)
    full, coarse = (token_loss("forward_kl", targets, logits).sum() for targets in (whole, rows.targets))
    return float(1 - coarse / full)
