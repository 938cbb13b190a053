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

from steerlens.models import check_layer, huggingface_model, model_name
from steerlens.prompts.chat import chat_fingerprint
from steerlens.prompts.numbers import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRows, ResumedRows
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.vector import SteeringVector, VectorSource

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths at which the mean difference is tried; it enters every comparison at its best one."""

NO_EFFECT = 1e-3
"""Below this KL (nats a token) a prompt does nothing that a vector could explain."""

N_RANDOM = 5


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
        layer: where the vector is added; None fits every layer for a third of the steps, takes the one with the
            best kl_explained on validation rows, and goes on there.
        questions: user turns, at least `config.n_rows` different ones; None takes number tasks.

    Returns:
        A vector of one layer. Its `metrics`, all measured on held-out rows: `kl_explained` with
        `kl_explained_low` and `_high` (95 %, bootstrap over rows), `kl_prompt` (nats a token that the prompt
        changes), `top1_agreement`, `kl_explained_mean_difference` (best layer and strength on validation
        rows), `kl_explained_random` (same norm), `kl_explained_shuffled` (fitted to other tokens' targets),
        `cosine_mean_difference`, `relative_norm` (to the residual's), and `by_layer` on validation rows.

    Raises:
        ValueError: the prompt is empty, changes no prediction, or does not fit the context; the layer is out
            of range; too few questions.
    """
    config = config or FitConfig()
    layers = range(model.cfg.n_layers) if layer is None else [check_layer(model, layer)]
    questions = number_prompts(2 * config.n_rows, seed=config.seed) if questions is None else questions
    data = FitData.sample(model, prompt, list(dict.fromkeys(questions)), config)
    start = diff_in_means(model, prompt, questions=data.train_questions, layers=list(layers))
    frozen = [p for p in huggingface_model(model).parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        screening = replace(config, steps=max(1, config.steps // 3))
        fits = {one: _fit_layer(model, data, start.at(one), screening if len(layers) > 1 else config) for one in layers}
        best = max(fits.values(), key=lambda fit: fit.validation)
        if len(layers) > 1:
            best = fits[best.layer] = _refined(model, data, best, config)
        metrics = _heldout_metrics(model, data, list(fits.values()), best, config)
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


def _fit_layer(model: "TransformerBridge", data: FitData, start: SteeringVector, config: FitConfig) -> _LayerFit:
    layer = start.layers[0]
    train, validation = ResumedRows(model, layer, data.train), ResumedRows(model, layer, data.validation)
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


def _refined(model: "TransformerBridge", data: FitData, fit: _LayerFit, config: FitConfig) -> _LayerFit:
    """The fit continued for all steps, at the layer that won with a third of them."""
    train, validation = ResumedRows(model, fit.layer, data.train), ResumedRows(model, fit.layer, data.validation)
    plain = validation.mean_kl(torch.zeros_like(fit.direction))
    direction, best = _descend(train, validation, fit.direction, config, f"fit layer {fit.layer}, on", plain)
    return replace(fit, direction=direction, validation=1 - best / plain)


def _descend(
    train: ResumedRows, validation: ResumedRows, start: Tensor, config: FitConfig, label: str, plain: float
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
    model: "TransformerBridge", data: FitData, fits: list[_LayerFit], best: _LayerFit, config: FitConfig
) -> dict:
    """Everything that is reported, on held-out rows."""
    heldout = {fit.layer: ResumedRows(model, fit.layer, data.heldout) for fit in fits}
    ours = heldout[best.layer]
    plain = ours.row_kl(torch.zeros_like(best.direction))
    steered = ours.row_kl(best.direction)

    def explained(resumed: ResumedRows, direction: Tensor) -> float:
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
def _agreement(resumed: ResumedRows, rows: Sequence[FitRows], direction: Tensor) -> float:
    """Share of completion tokens at which the steered and the prompted model's likeliest token agree."""
    agree = [resumed.predict(index, direction).argmax(-1) == one.targets.argmax(-1) for index, one in enumerate(rows)]
    return float(torch.cat(agree).float().mean())


def _shuffled_control(
    model: "TransformerBridge", data: FitData, best: _LayerFit, config: FitConfig
) -> Float[Tensor, " d_model"]:
    """The same fit at the same layer, with each token's target taken from another token of the batch."""
    generator = torch.Generator().manual_seed(config.seed)

    def shuffled(part: tuple[FitRows, ...]) -> tuple[FitRows, ...]:
        return tuple(
            replace(rows, targets=rows.targets[torch.randperm(len(rows.targets), generator=generator)]) for rows in part
        )

    train = ResumedRows(model, best.layer, shuffled(data.train))
    validation = ResumedRows(model, best.layer, shuffled(data.validation))
    nothing = torch.zeros_like(best.direction)
    direction, _ = _descend(train, validation, nothing, config, "fit control", validation.mean_kl(nothing))
    return direction
