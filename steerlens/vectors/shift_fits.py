"""Fit a vector to what a fine-tuning did to a model's predictions, as others are fitted to what a prompt does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.models.bridge import check_layer, evaluating
from steerlens.models.identity import model_name
from steerlens.text.chat import Chat, chat_fingerprint
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, answered, in_random_order
from steerlens.vectors.fit_quality import CONTROL_STEPS, heldout_metrics
from steerlens.vectors.layer_fits import NoEffect, fit_layers, frozen, search_layers, steps_of_search
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@checked
def fit_model_shift(
    student: "TransformerBridge",
    base: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    layer: int | None = None,
    config: FitConfig | None = None,
) -> SteeringVector:
    """Fit the one vector that, added to the base, best predicts what the student does.

    The student answers the chats. The vector is fitted as to a system prompt (`fit_prompt_vector`), with the student in the
    place of the prompted model. Its metrics say how much of the fine-tuning it explains, on answers to other chats.

    Args:
        chats: at least 3.
        layer: where the vector is added; None searches for the best.

    Raises:
        ValueError: too few chats, the student predicts what its base does, or the layer is out of range.
    """
    config = config or FitConfig()
    layers = [check_layer(base, layer)] if layer is not None else range(base.cfg.n_layers)
    asked = in_random_order(chats, config)
    with evaluating(student), frozen(student), frozen(base):
        data = FitData.of(base, asked, answered(student, None, asked, config), config, teacher=student)
        most = steps_of_search(len(layers), config) if layer is None else config.steps
        try:
            with tqdm(total=most + min(config.steps, CONTROL_STEPS), desc="fit", unit="step") as bar:
                fits = (
                    search_layers(base, data, layers, config, on_step=bar.update)
                    if layer is None
                    else [fit_layers(base, data, layers, config, on_step=bar.update)]
                )
                metrics = heldout_metrics(base, data, fits, fits[0], config, on_step=bar.update)
        except NoEffect as error:
            raise NoEffect(
                f"{model_name(student)!r} predicts what {model_name(base)!r} does on these chats, so there is nothing for a "
                "vector to explain. Give other chats, or check that the student's adapter was loaded."
            ) from error
    source = VectorSource.of(
        base,
        method=f"fitted by {config.objective} to a fine-tuned model, added at {config.positions} tokens",
        chat_fingerprint=chat_fingerprint(base.tokenizer),
        seed=config.seed,
        positions=config.positions,
    )
    return SteeringVector(fits[0].layers, fits[0].directions, source, metrics)
