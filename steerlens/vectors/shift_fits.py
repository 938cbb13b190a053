"""Fit a vector to what a fine-tuning did to a model's predictions, as others are fitted to what a prompt does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerlens.arguments import checked
from steerlens.models.bridge import check_layer, evaluating
from steerlens.models.identity import model_name
from steerlens.text.chat import Chat
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, answered, in_random_order
from steerlens.vectors.fitting import fitted_to
from steerlens.vectors.layer_fits import NoEffect
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
    with evaluating(student):
        data = FitData.of(base, asked, answered(student, None, asked, config), config, teacher=student)
    try:
        return fitted_to(data, base, layers, config, search=layer is None, what="a fine-tuned model")
    except NoEffect as error:
        raise NoEffect(
            f"{model_name(student)!r} predicts what {model_name(base)!r} does on these chats, so there is nothing for a vector "
            "to explain. Give other chats, or check that the student's adapter was loaded."
        ) from error
