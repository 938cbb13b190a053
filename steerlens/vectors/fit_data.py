"""What a fit is made of: rows whose targets are the prompted model's predictions, and forwards that begin at a layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import completion_logits, generate
from steerlens.models import parameters_device
from steerlens.prompts.chat import TokenBatch, as_chat, encode_prompt, pad_rows
from steerlens.residuals.capture import read_residuals
from steerlens.residuals.stream import resume_after
from steerlens.vectors.config import FitConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class FitRows:
    """Rows without the prompt, and the log-probabilities of the prompted model at each completion token.

    `targets` has the order of `completion_logits`: row after row.
    """

    batch: TokenBatch
    targets: Float[Tensor, "token d_vocab"]

    @property
    def row_of_token(self) -> Tensor:
        """The row that each target belongs to."""
        return self.batch.prediction_mask.nonzero()[:, 0].cpu()


@dataclass(frozen=True)
class FitData:
    """Rows for the gradient, for choices and for the reported numbers, in batches; their questions are distinct."""

    train: tuple[FitRows, ...]
    validation: tuple[FitRows, ...]
    heldout: tuple[FitRows, ...]
    train_questions: list[str]

    @classmethod
    def sample(cls, model: "TransformerBridge", prompt: str, questions: list[str], config: FitConfig) -> "FitData":
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
        prompted = [encode_prompt(model.tokenizer, as_chat(question, prompt)) for question in questions]
        plain = [encode_prompt(model.tokenizer, as_chat(question)) for question in questions]
        fitted, chosen = config.n_train, config.n_train + config.n_validation

        def part(start: int, end: int) -> tuple[FitRows, ...]:
            pieces = [
                slice(first, min(first + config.batch_size, end)) for first in range(start, end, config.batch_size)
            ]
            return tuple(prepare_rows(model, prompted[s], plain[s], completions[s]) for s in pieces)

        return cls(part(0, fitted), part(fitted, chosen), part(chosen, config.n_rows), questions[:fitted])


@torch.no_grad()
def prepare_rows(
    model: "TransformerBridge", prompted: list[list[int]], plain: list[list[int]], completions: list[list[int]]
) -> FitRows:
    """Rows without the prompt, with the prompted model's predictions at every completion token."""
    device = parameters_device(model)
    with_prompt = pad_rows(model.tokenizer, prompted, completions).to(device)
    without = pad_rows(model.tokenizer, plain, completions).to(device)
    return FitRows(without, completion_logits(model, with_prompt).log_softmax(-1))


def _kl(target: Float[Tensor, "token d_vocab"], prediction: Float[Tensor, "token d_vocab"]) -> Float[Tensor, " token"]:
    """KL(target || prediction) in nats, from log-probabilities."""
    return (target.exp() * (target - prediction)).sum(-1)


class ResumedRows:
    """Rows whose residuals at one layer are known, so that a forward begins there."""

    def __init__(self, model: "TransformerBridge", layer: int, rows: Sequence[FitRows]) -> None:
        self._model, self._layer, self._rows = model, layer, rows
        self._residuals = [_whole_residuals(model, one.batch, layer) for one in rows]
        self.scale = float(torch.stack([r.float().square().mean().sqrt() for r in self._residuals]).mean())

    def __len__(self) -> int:
        return len(self._rows)

    def predict(self, index: int, direction: Tensor) -> Float[Tensor, "token d_vocab"]:
        """Log-probabilities of batch `index` with `direction` added at every token."""
        resid = self._residuals[index]
        with resume_after(self._model, self._layer, lambda: resid + direction.to(resid)):
            return completion_logits(self._model, self._rows[index].batch).log_softmax(-1)

    def kl(self, index: int, direction: Tensor) -> Float[Tensor, " token"]:
        """KL from the prompted model at each completion token of batch `index`."""
        return _kl(self._rows[index].targets, self.predict(index, direction))

    @torch.no_grad()
    def row_kl(self, direction: Tensor) -> Float[Tensor, "row two"]:
        """For every row: the sum of KL over its completion tokens, and how many they are."""
        sums = []
        for index, rows in enumerate(self._rows):
            kl, row = self.kl(index, direction).cpu(), rows.row_of_token
            total = torch.zeros(len(rows.batch)).index_add(0, row, kl)
            sums.append(torch.stack([total, torch.bincount(row, minlength=len(rows.batch)).float()], dim=-1))
        return torch.cat(sums)

    def mean_kl(self, direction: Tensor) -> float:
        """Nats a completion token."""
        total, count = self.row_kl(direction).sum(0)
        return float(total / count)


@torch.no_grad()
def _whole_residuals(model: "TransformerBridge", batch: TokenBatch, layer: int) -> Float[Tensor, "batch pos d_model"]:
    flat = read_residuals(model, batch, [layer], "all")[layer]
    resid = flat.new_zeros(*batch.tokens.shape, flat.shape[-1])
    resid[batch.attention_mask] = flat
    return resid
