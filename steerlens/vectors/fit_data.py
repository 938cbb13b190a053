"""What a fit is made of: completions of the prompted model, and its predictions at each of their tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.forward import completion_logits
from steerlens.generation import generate
from steerlens.models.bridge import is_watched, parameters_device
from steerlens.residuals.stream import OnResidual, Residual, watch_residuals
from steerlens.shared_prompts import completion_logits_after
from steerlens.text.batches import TokenBatch, pad_rows, shared_prefix
from steerlens.text.chat import Chat, as_chat, encode_prompt
from steerlens.vectors.config import FitConfig
from steerlens.vectors.objectives import Targets, token_loss

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class FitRows:
    """Rows without the prompt, and the prompted model's predictions at each completion token.

    `targets` has the order of `completion_logits`: row after row. `questions` numbers the row's question.
    `last_prompt` is the sum over rows of the prompted model's residuals at the last prompt token.
    """

    batch: TokenBatch
    targets: Targets
    questions: tuple[int, ...]
    last_prompt: Float[Tensor, "layer d_model"]

    @property
    def row_of_token(self) -> Tensor:
        """The row that each target belongs to."""
        return self.batch.prediction_mask.nonzero()[:, 0].cpu()


@dataclass(frozen=True)
class FitData:
    """Rows for the gradient, for choices and for the reported numbers, in batches; they share no question.

    `prompted` is the prompted model's mean residual over the training rows, at the last prompt token of every layer.
    `coarsening` is the share of KL(prompted || plain) that targets of the likeliest tokens hide, measured on the
    first batch of held-out rows; 0 where targets are whole.
    """

    train: tuple[FitRows, ...]
    validation: tuple[FitRows, ...]
    heldout: tuple[FitRows, ...]
    train_questions: list[str | Chat]
    prompted: Float[Tensor, "layer d_model"]
    coarsening: float

    @classmethod
    def sample(
        cls, model: "TransformerBridge", prompt: str, questions: Sequence[str | Chat], config: FitConfig
    ) -> "FitData":
        """Let the prompted model answer the questions, in an order drawn from the seed, and prepare the rows.

        Raises:
            ValueError: too few questions, or one that cannot be rendered.
        """
        questions = in_random_order(questions, config)
        return cls.of(model, questions, answered(model, prompt, questions, config), config)

    @classmethod
    def of(
        cls,
        model: "TransformerBridge",
        questions: Sequence[str | Chat],
        parts: Sequence[Sequence["FitRow"]],
        config: FitConfig,
        *,
        among: Int[Tensor, " choice"] | None = None,
        teacher: "TransformerBridge | None" = None,
    ) -> "FitData":
        """Prepare rows for training, validation and the reported numbers; their questions are indices of `questions`.

        Args:
            among: predictions are compared between these tokens alone; None takes all.
            teacher: the model whose predictions are the target; None is `model` itself, with the prompt.
        """
        teacher = teacher or model
        batches = [_in_batches(part, config.batch_size) for part in parts]
        train, validation, heldout = (
            tuple(prepare_rows(model, rows, teacher, top_k=config.top_k, among=among) for rows in part)
            for part in batches
        )
        coarsening = 0.0 if heldout[0].targets.kept is None else _coarsening(model, teacher, batches[2][0], heldout[0])
        prompted = torch.stack([rows.last_prompt for rows in train]).sum(0) / len(parts[0])
        return cls(train, validation, heldout, [questions[row.question] for row in parts[0]], prompted, coarsening)


def in_random_order(questions: Sequence[str | Chat], config: FitConfig) -> list[str | Chat]:
    """Each question once, in an order drawn from the seed."""
    distinct = list({repr(question): question for question in questions}.values())
    return [distinct[index] for index in np.random.default_rng(config.seed).permutation(len(distinct))]


def answered(
    model: "TransformerBridge", prompt: str | None, questions: Sequence[str | Chat], config: FitConfig
) -> list[list["FitRow"]]:
    """The prompted model's answers, for training, validation and held-out rows; without a prompt, the model's own.

    Raises:
        ValueError: as `FitData.sample`.
    """
    if len(questions) < 3:
        raise ValueError(
            f"Got {len(questions)} different questions, but the fit needs at least 3: one to fit on, one to choose on, "
            "one for the reported numbers. Give more."
        )
    asked = _asked(len(questions), config)
    rows = iter(_answer(model, prompt, questions, [question for part in asked for question in part], config))
    return [list(itertools.islice(rows, len(part))) for part in asked]


def heldout_rows(
    model: "TransformerBridge", prompt: str, questions: Sequence[str | Chat], config: FitConfig
) -> tuple["FitRows", ...]:
    """Rows for reported numbers alone: `config.n_heldout` answers of the prompted model, each question asked in turn.

    Raises:
        ValueError: no questions, or one that cannot be rendered.
    """
    if not questions:
        raise ValueError("Got no questions. Give at least one, or leave questions out for number tasks.")
    order = [row % len(questions) for row in range(config.n_heldout)]
    rows = _in_batches(_answer(model, prompt, questions, order, config), config.batch_size)
    return tuple(prepare_rows(model, batch, model, top_k=config.top_k) for batch in rows)


def _answer(
    model: "TransformerBridge",
    prompt: str | None,
    questions: Sequence[str | Chat],
    order: Sequence[int],
    config: FitConfig,
) -> list["FitRow"]:
    """The prompted model's answers to questions by number, each its own draw."""
    completions = generate(
        model,
        [as_chat(questions[question], prompt) for question in order],
        max_new_tokens=config.completion_length(model.tokenizer),
        seed=config.seed,
    )
    return [
        FitRow(
            question,
            encode_prompt(model.tokenizer, as_chat(questions[question], prompt)),
            encode_prompt(model.tokenizer, as_chat(questions[question])),
            completion,
        )
        for question, completion in zip(order, completions, strict=True)
    ]


@dataclass(frozen=True)
class FitRow:
    """Token ids of one answer: the question's number, its rendering with and without the prompt, the completion."""

    question: int
    prompted: list[int]
    plain: list[int]
    completion: list[int]


def _asked(n_questions: int, config: FitConfig) -> list[list[int]]:
    """The question of every row of the three parts; where there are fewer questions than rows, each is asked again."""
    sizes = np.array([config.n_train, config.n_validation, config.n_heldout])
    beyond_one_each = min(n_questions, config.n_rows) - 3
    shares = 1 + beyond_one_each * (sizes - 1) // max(1, config.n_rows - 3)
    shares[0] = min(sizes[0], n_questions - shares[1:].sum())
    ends = np.cumsum(shares)
    return [
        [int(end - share + row % share) for row in range(size)]
        for size, share, end in zip(sizes, shares, ends, strict=True)
    ]


def _in_batches(rows: Sequence[FitRow], batch_size: int) -> list[list[FitRow]]:
    """Rows of like length together, so that little is padded."""
    by_length = sorted(rows, key=lambda row: len(row.plain) + len(row.completion))
    return [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]


@torch.no_grad()
def prepare_rows(
    model: "TransformerBridge",
    rows: Sequence[FitRow],
    teacher: "TransformerBridge",
    *,
    top_k: int,
    among: Int[Tensor, " choice"] | None = None,
) -> FitRows:
    """Rows without the prompt, with the predictions of `teacher` with it at every completion token."""
    batch = pad_rows(model.tokenizer, [row.plain for row in rows], [row.completion for row in rows])
    batch = batch.to(parameters_device(model))
    logits, last_prompt = _run_prompted(teacher, rows)
    targets = Targets.of(logits, batch.tokens[batch.completion_mask], top_k=top_k, among=among)
    return FitRows(batch, targets, tuple(row.question for row in rows), last_prompt)


def _run_prompted(
    model: "TransformerBridge", rows: Sequence[FitRow]
) -> tuple[Float[Tensor, "token d_vocab"], Float[Tensor, "layer d_model"]]:
    """Logits at completion tokens, and the sum over rows of the residuals at the last prompt token of every layer.

    What all rows begin with, the system prompt, is run once for all of them.
    """
    prompted = [row.prompted for row in rows]
    shared = 0 if is_watched(model) else min(shared_prefix(prompted), min(map(len, prompted)) - 1)
    own = pad_rows(model.tokenizer, [row[shared:] for row in prompted], [row.completion for row in rows], side="right")
    own = own.to(parameters_device(model))
    last = own.position_mask("last_prompt")
    sums: dict[int, Float[Tensor, " d_model"]] = {}

    def keep(layer: int) -> OnResidual:
        def read(resid: Residual) -> None:
            if resid.shape[:2] == last.shape:
                sums[layer] = resid[last].double().sum(0).float().cpu()

        return read

    layers = range(model.cfg.n_layers)
    with watch_residuals(model, {layer: keep(layer) for layer in layers}):
        logits = (
            completion_logits_after(model, prompted[0][:shared], own) if shared > 0 else completion_logits(model, own)
        )
    return logits, torch.stack([sums[layer] for layer in layers])


@torch.no_grad()
def _coarsening(
    model: "TransformerBridge", teacher: "TransformerBridge", rows: Sequence[FitRow], prepared: FitRows
) -> float:
    logits = completion_logits(model, prepared.batch)
    whole = Targets(_run_prompted(teacher, rows)[0].log_softmax(-1), None, prepared.targets.sampled)
    full, coarse = (token_loss("forward_kl", targets, logits).sum() for targets in (whole, prepared.targets))
    return float(1 - coarse / full)
