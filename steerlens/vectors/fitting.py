"""Fit the one vector that best does what a system prompt does.

The paper (arXiv 2606.00995) takes v_teacher as a difference of means and never optimises a vector. Here the
vector is fitted to the prompt's effect on the model's predictions:

    v* = argmin_v  E_{x, y ~ p(.|s, x)}  mean_t  KL( p(. | s, x, y_<t)  ||  q_v(. | x, y_<t) )

where s is the system prompt, y a completion sampled from the prompted model, p the prompted model, and q_v the
model without prompt with v added to the residual stream at the output of block l, at every token. The two
contexts are aligned by their completions. What is reported, on prompts that neither the fit nor the choice
of the layer has seen, is

    kl_explained = 1 - KL(p || q_v) / KL(p || q_0).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlens.models import (
    check_layer,
    completion_logits,
    generate,
    huggingface_model,
    model_name,
    parameters_device,
)
from steerlens.prompts.chat import TokenBatch, as_chat, chat_fingerprint, encode_prompt, pad_rows
from steerlens.prompts.numbers import number_prompts
from steerlens.residuals.capture import read_residuals
from steerlens.residuals.stream import resume_after
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.vector import SteeringVector, VectorSource

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths at which the mean difference is tried; it enters every comparison at its best one."""

NO_EFFECT = 1e-3
"""Below this KL (nats a token) a prompt does nothing that a vector could explain."""

N_RANDOM = 5


@dataclass(frozen=True)
class FitConfig:
    """How a prompt vector is fitted.

    Args:
        n_train, n_validation, n_heldout: rows for the gradient, for choices (strength, step, layer), and for
            the reported numbers. Their prompts are distinct.
        max_new_tokens: length of the sampled completions.
        learning_rate: of Adam, in units of the residual's root mean square at the layer; falls linearly to 0.
        steps, batch_size: of the descent; the best vector on validation rows is kept.
        seed: fixes completions, batches and random vectors.
    """

    n_train: int = 384
    n_validation: int = 96
    n_heldout: int = 192
    max_new_tokens: int = 32
    learning_rate: float = 0.15
    steps: int = 200
    batch_size: int = 64
    seed: int = 0

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return self.n_train + self.n_validation + self.n_heldout


def fit_prompt_vector(
    model: "TransformerBridge",
    prompt: str,
    *,
    layer: int | None = None,
    questions: Sequence[str] | None = None,
    config: FitConfig | None = None,
) -> SteeringVector:
    """Fit the steering vector that best reproduces a system prompt's next-token predictions.

    Args:
        prompt: the system prompt.
        layer: where the vector is added; None fits every layer and takes the one with the best kl_explained
            on validation rows.
        questions: user turns, at least `config.n_rows` different ones; None takes number tasks.

    Returns:
        A vector of one layer. Its `metrics`, all measured on held-out rows: `kl_explained` with
        `kl_explained_low` and `_high` (95 %, bootstrap over rows), `kl_prompt` (nats a token that the prompt
        changes), `top1_agreement`, `kl_explained_mean_difference` (best layer and strength on validation
        rows), `kl_explained_random` (same norm), `kl_explained_shuffled` (fitted to other rows' targets),
        `cosine_mean_difference`, `relative_norm` (to the residual's), and `by_layer` on validation rows.

    Raises:
        ValueError: the prompt is empty, changes no prediction, or does not fit the context; the layer is out
            of range; too few questions.
    """
    config = config or FitConfig()
    layers = range(model.cfg.n_layers) if layer is None else [check_layer(model, layer)]
    questions = number_prompts(2 * config.n_rows, seed=config.seed) if questions is None else questions
    data = _Data.sample(model, prompt, list(dict.fromkeys(questions)), config)
    start = diff_in_means(model, prompt, questions=data.train_questions, layers=list(layers))
    frozen = [p for p in huggingface_model(model).parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        fits = [_fit_layer(model, data, start.at(one), config) for one in layers]
        best = max(fits, key=lambda fit: fit.validation)
        metrics = _heldout_metrics(model, data, fits, best, config)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    source = VectorSource(
        model=model_name(model),
        method="fitted by KL to the prompted model",
        prompt=prompt,
        chat_fingerprint=chat_fingerprint(model.tokenizer),
        seed=config.seed,
    )
    return SteeringVector((best.layer,), best.direction[None], source, metrics)


@dataclass(frozen=True)
class _LayerFit:
    """The best direction at one layer; `validation` values are kl_explained on validation rows."""

    layer: int
    direction: Float[Tensor, " d_model"]
    validation: float
    mean_difference: Float[Tensor, " d_model"]
    mean_difference_validation: float


@dataclass(frozen=True)
class _Rows:
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
class _Data:
    train: tuple[_Rows, ...]
    validation: tuple[_Rows, ...]
    heldout: tuple[_Rows, ...]
    train_questions: list[str]

    @classmethod
    def sample(cls, model: "TransformerBridge", prompt: str, questions: list[str], config: FitConfig) -> "_Data":
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

        def part(start: int, end: int) -> tuple[_Rows, ...]:
            pieces = [
                slice(first, min(first + config.batch_size, end)) for first in range(start, end, config.batch_size)
            ]
            return tuple(_prepare(model, prompted[s], plain[s], completions[s]) for s in pieces)

        return cls(part(0, fitted), part(fitted, chosen), part(chosen, config.n_rows), questions[:fitted])


@torch.no_grad()
def _prepare(
    model: "TransformerBridge", prompted: list[list[int]], plain: list[list[int]], completions: list[list[int]]
) -> _Rows:
    device = parameters_device(model)
    with_prompt = pad_rows(model.tokenizer, prompted, completions).to(device)
    without = pad_rows(model.tokenizer, plain, completions).to(device)
    return _Rows(without, completion_logits(model, with_prompt).log_softmax(-1))


def _kl(target: Float[Tensor, "token d_vocab"], prediction: Float[Tensor, "token d_vocab"]) -> Float[Tensor, " token"]:
    """KL(target || prediction) in nats, from log-probabilities."""
    return (target.exp() * (target - prediction)).sum(-1)


class _Resumed:
    """Rows whose residuals at one layer are known, so that a forward begins there."""

    def __init__(self, model: "TransformerBridge", layer: int, rows: Sequence[_Rows]) -> None:
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


def _fit_layer(model: "TransformerBridge", data: _Data, start: SteeringVector, config: FitConfig) -> _LayerFit:
    layer = start.layers[0]
    train, validation = _Resumed(model, layer, data.train), _Resumed(model, layer, data.validation)
    nothing = torch.zeros(start.directions.shape[1])
    plain = validation.mean_kl(nothing)
    if plain < NO_EFFECT:
        raise ValueError(
            f"The prompt {start.source.prompt!r} changes the model's predictions by {plain:.1e} nats a token, so "
            "there is nothing for a vector to explain and kl_explained is undefined. Give a prompt that has an effect "
            "on these questions."
        )
    scaled = [strength * start.directions[0] for strength in STRENGTHS]
    mean_difference = min(scaled, key=validation.mean_kl)
    candidates = min((mean_difference, nothing), key=validation.mean_kl)
    direction, best = _descend(train, validation, candidates, config, f"fit layer {layer}", plain)
    return _LayerFit(
        layer, direction, 1 - best / plain, mean_difference, 1 - validation.mean_kl(mean_difference) / plain
    )


def _descend(
    train: _Resumed, validation: _Resumed, start: Tensor, config: FitConfig, label: str, plain: float
) -> tuple[Float[Tensor, " d_model"], float]:
    """Adam on the vector alone; returns the best vector on validation rows and its KL there."""
    vector = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([vector], lr=config.learning_rate * train.scale)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=config.steps)
    best, best_kl = start.clone(), validation.mean_kl(start)
    progress = tqdm(_cycle(len(train), config), total=config.steps, desc=label, unit="step", leave=False)
    for step, index in enumerate(progress, 1):
        optimizer.zero_grad()
        train.kl(index, vector).mean().backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == config.steps:
            kl = validation.mean_kl(vector.detach())
            if kl < best_kl:
                best, best_kl = vector.detach().clone(), kl
            progress.set_postfix(kl_explained=f"{1 - best_kl / plain:.3f}", refresh=False)
    return best, best_kl


def _cycle(n_batches: int, config: FitConfig) -> Iterator[int]:
    order = np.random.default_rng(config.seed)
    made = 0
    while made < config.steps:
        for index in order.permutation(n_batches)[: config.steps - made]:
            made += 1
            yield int(index)


def _heldout_metrics(
    model: "TransformerBridge", data: _Data, fits: list[_LayerFit], best: _LayerFit, config: FitConfig
) -> dict:
    """Everything that is reported, on held-out rows."""
    heldout = {fit.layer: _Resumed(model, fit.layer, data.heldout) for fit in fits}
    ours = heldout[best.layer]
    plain = ours.row_kl(torch.zeros_like(best.direction))
    steered = ours.row_kl(best.direction)

    def explained(resumed: _Resumed, direction: Tensor) -> float:
        return 1 - float(resumed.row_kl(direction)[:, 0].sum() / plain[:, 0].sum())

    rng = np.random.default_rng(config.seed)
    draws = rng.integers(0, len(plain), (2000, len(plain)))
    ratios = 1 - steered[:, 0].numpy()[draws].sum(-1) / plain[:, 0].numpy()[draws].sum(-1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    generator = torch.Generator().manual_seed(config.seed)
    random = torch.randn(N_RANDOM, len(best.direction), generator=generator)
    random = torch.nn.functional.normalize(random, dim=-1) * best.direction.norm()
    baseline = max(fits, key=lambda fit: fit.mean_difference_validation)
    return {
        "kl_explained": 1 - float(steered[:, 0].sum() / plain[:, 0].sum()),
        "kl_explained_low": float(low),
        "kl_explained_high": float(high),
        "kl_prompt": float(plain[:, 0].sum() / plain[:, 1].sum()),
        "top1_agreement": _agreement(ours, data.heldout, best.direction),
        "top1_agreement_plain": _agreement(ours, data.heldout, torch.zeros_like(best.direction)),
        "kl_explained_mean_difference": explained(heldout[baseline.layer], baseline.mean_difference),
        "layer_mean_difference": baseline.layer,
        "kl_explained_random": float(np.mean([explained(ours, direction) for direction in random])),
        "kl_explained_shuffled": explained(ours, _shuffled_control(model, data, best, config)),
        "cosine_mean_difference": float(
            torch.nn.functional.cosine_similarity(best.direction, best.mean_difference, dim=0)
        ),
        "relative_norm": float(best.direction.norm()) / (ours.scale * len(best.direction) ** 0.5),
        "by_layer": {
            str(fit.layer): {
                "kl_explained": fit.validation,
                "kl_explained_mean_difference": fit.mean_difference_validation,
            }
            for fit in fits
        },
    }


@torch.no_grad()
def _agreement(resumed: _Resumed, rows: Sequence[_Rows], direction: Tensor) -> float:
    """Share of completion tokens at which the steered and the prompted model's likeliest token agree."""
    agree = [resumed.predict(index, direction).argmax(-1) == one.targets.argmax(-1) for index, one in enumerate(rows)]
    return float(torch.cat(agree).float().mean())


def _shuffled_control(
    model: "TransformerBridge", data: _Data, best: _LayerFit, config: FitConfig
) -> Float[Tensor, " d_model"]:
    """The same fit at the same layer, with each token's target taken from another token of the batch."""
    generator = torch.Generator().manual_seed(config.seed)

    def shuffled(part: tuple[_Rows, ...]) -> tuple[_Rows, ...]:
        return tuple(
            replace(rows, targets=rows.targets[torch.randperm(len(rows.targets), generator=generator)]) for rows in part
        )

    train = _Resumed(model, best.layer, shuffled(data.train))
    validation = _Resumed(model, best.layer, shuffled(data.validation))
    nothing = torch.zeros_like(best.direction)
    direction, _ = _descend(train, validation, nothing, config, "fit control", validation.mean_kl(nothing))
    return direction
