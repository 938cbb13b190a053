"""Fit a vector to given answers of the prompted model, instead of to all that it says.

A filter lets only some of a teacher's answers through to a student. A vector that is fitted to these answers, and judged by the
tokens they are written with, does of the prompt what the student can see.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from steerlens.arguments import checked
from steerlens.models.bridge import check_layer, frozen
from steerlens.text.chat import Chat, as_chat, chat_fingerprint, encode_completion, encode_prompt
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRow
from steerlens.vectors.fit_quality import explained_with_interval
from steerlens.vectors.layer_fits import fit_layers
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SHARE = 8
"""One in so many answers is for choices, and one for the reported numbers."""


@checked
def fit_answers_vector(
    model: "TransformerBridge",
    prompt: str,
    answers: Sequence[tuple[str | Chat, str]],
    *,
    layers: Sequence[int] | None = None,
    among: Int[Tensor, " choice"] | None = None,
    config: FitConfig | None = None,
) -> SteeringVector:
    """Fit one direction at each layer, jointly, to what a prompt does to the model's predictions of these answers.

    Args:
        answers: (user turn, answer), as the model gave them under the prompt; at least 8.
        layers: None takes all.
        among: sorted tokens between which predictions are compared, such as `list_tokens`; None is all.
        config: its numbers of rows are not used; those of the answers are.

    Returns:
        The vector, with kl_explained on held-out answers, and its 95 % interval, in its metrics.

    Raises:
        ValueError: fewer than 8 answers, a layer out of range, or the prompt changes no prediction.
    """
    eighth, config = len(answers) // SHARE, config or FitConfig()
    if not eighth:
        raise ValueError(f"Got {len(answers)} answers, and {SHARE} are needed to fit a vector to. Give more.")
    chosen = [check_layer(model, layer) for layer in (range(model.cfg.n_layers) if layers is None else layers)]
    rows = [
        FitRow(
            number,
            encode_prompt(model.tokenizer, as_chat(asked, prompt)),
            encode_prompt(model.tokenizer, as_chat(asked)),
            encode_completion(model.tokenizer, answer),
        )
        for number, (asked, answer) in enumerate(answers)
    ]
    parts = [rows[2 * eighth :], rows[:eighth], rows[eighth : 2 * eighth]]
    with frozen(model):
        data = FitData.of(model, [asked for asked, _ in answers], parts, config, among=among)
        directions = fit_layers(model, data, chosen, config).directions
        heldout = ResumedRows(model, chosen, data.heldout, config.positions)
        plain, steered = (heldout.row_kl(added)[:, 0] for added in (heldout.nothing, directions))
    explained, low, high = explained_with_interval(steered, plain, heldout.questions, seed=config.seed)
    source = VectorSource.of(
        model,
        method="fitted to given answers",
        prompt=prompt,
        chat_fingerprint=chat_fingerprint(model.tokenizer),
        seed=config.seed,
        positions=config.positions,
    )
    return SteeringVector(tuple(chosen), directions, source, FitMetrics(explained, low, high))
