"""How much of a prompt's effect does a given vector explain, wherever it comes from?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlens.arguments import checked
from steerlens.text.chat import Chat
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import heldout_rows
from steerlens.vectors.fit_quality import judge
from steerlens.vectors.interventions import acting_positions
from steerlens.vectors.layer_fits import NO_EFFECT
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Explained:
    """What a vector does of what a prompt does.

    `kl_explained` is 1 - KL(prompted || steered) / KL(prompted || plain), from `low` to `high` (95 %, bootstrap over
    questions); below 0 the vector is worse than none. `kl_prompt` is KL(prompted || plain), in nats a token. The likeliest
    token is the prompted model's at a share of `top1_agreement` of all tokens, without the vector at `top1_agreement_plain`.
    """

    kl_explained: float
    low: float
    high: float
    kl_prompt: float
    top1_agreement: float
    top1_agreement_plain: float
    n_rows: int


@checked
def explained(
    model: "TransformerBridge",
    vector: SteeringVector,
    prompt: str,
    *,
    questions: Sequence[str | Chat] | None = None,
    config: FitConfig | None = None,
) -> Explained:
    """Measure how much of a system prompt's effect on the predictions a vector explains.

    The prompted model answers the questions; at each token of its answers the plain and the steered model predict as well.
    The vector may come from anywhere: fitted, a difference of means, imported. Scale it with `strength * vector`.

    Args:
        vector: added at all of its layers, at `config.positions`; without a config where it was fitted.
        questions: user turns that had no part in making the vector; None takes number tasks.
        config: `n_heldout` rows of at most `max_new_tokens` tokens are measured; the rest is for fits.

    Raises:
        ValueError: the vector is of another model, the prompt is empty or changes no prediction, or a question cannot be
            rendered.

    Warns:
        UserWarning: the vector was fitted at other positions than those of `config`.
    """
    config = config or FitConfig(positions=vector.source.positions or "all")
    acting_positions([vector], config.positions)
    vector.check_model(model)
    if questions is None:
        questions = number_prompts(config.n_heldout, model, seed=config.seed + HELDOUT_SEED)
    rows = heldout_rows(model, prompt, questions, config)
    resumed = ResumedRows(model, vector.layers, rows, config.positions)
    judged = judge(resumed, rows, vector.directions)
    effect = float(judged.plain.sum()) / judged.n_tokens
    if effect < NO_EFFECT:
        raise ValueError(
            f"The prompt changes the model's predictions by {effect:.1e} nats a token, so there is nothing for a vector to "
            "explain. Give a prompt that has an effect on these questions."
        )
    return Explained(
        *judged.explained(seed=config.seed),
        kl_prompt=effect,
        top1_agreement=judged.agreement,
        top1_agreement_plain=judged.agreement_plain,
        n_rows=len(judged.questions),
    )


HELDOUT_SEED = 1_000_003
"""Added to the seed, so that the number tasks are others than those of a fit with the same seed."""
