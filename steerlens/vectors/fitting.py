"""Fit the one vector that best does what a system prompt does.

The paper (arXiv 2606.00995) takes v_teacher as a difference of means and never optimises a vector. Here the
vector is fitted to the prompt's effect on the model's predictions:

    v* = argmin_v  E_{x, y ~ p(.|s, x)}  mean_t  D( p(. | s, x, y_<t)  ,  q_v(. | x, y_<t) )  +  l2 |v|^2 / |h|^2

where s is the system prompt, y a completion sampled from the prompted model, p the prompted model, and q_v the
model without prompt with v added to the residual stream at the output of one or more blocks. D is the KL
divergence, or another of the objectives. The two contexts are aligned by their completions. What is reported,
on prompts that neither the fit nor the choice of the layer has seen, is

    kl_explained = 1 - KL(p || q_v) / KL(p || q_0).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from tqdm.auto import tqdm

from steerlens.arguments import checked
from steerlens.cost import Cost
from steerlens.memory import bytes_to_compare, bytes_to_differentiate
from steerlens.models.bridge import check_layer, frozen, huggingface_model
from steerlens.text.chat import Chat, chat_fingerprint
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.fit_quality import CONTROL_STEPS, heldout_metrics
from steerlens.vectors.layer_fits import fit_layers, search_layers, steps_of_search
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Layers = int | Sequence[int] | Literal["best", "all"]


@checked
def fit_prompt_vector(
    model: "TransformerBridge",
    prompt: str,
    *,
    layers: Layers = "best",
    questions: Sequence[str | Chat] | None = None,
    config: FitConfig | None = None,
) -> SteeringVector:
    """Fit the steering vector that best reproduces a system prompt's next-token predictions.

    Args:
        prompt: the system prompt.
        layers: where the vector is added. A layer; several, or "all", for one direction at each, fitted jointly;
            "best" predicts from one backward pass which layers can explain most, tries `config.candidates` of them, drops
            the worse half after each round of steps, and fits the last one until nothing is gained.
        questions: user turns; None takes number tasks. Fitting, choosing and reporting share none. Fewer of them than
            `config.n_rows` are each answered several times.

    Returns:
        A vector. Its `metrics` (`FitMetrics`) say on held-out rows how well it does.

    Raises:
        ValueError: the prompt is empty, changes no prediction, or does not fit the context; a layer is out
            of range; too few questions.
    """
    config = config or FitConfig()
    chosen = _chosen_layers(model, layers)
    questions = number_prompts(2 * config.n_rows, model, seed=config.seed) if questions is None else questions
    data = FitData.sample(model, prompt, questions, config)
    return fitted_to(data, model, chosen, config, search=layers == "best", what="the prompted model", prompt=prompt)


def fitted_to(
    data: FitData,
    model: "TransformerBridge",
    layers: Sequence[int],
    config: FitConfig,
    *,
    search: bool,
    what: str,
    prompt: str | None = None,
) -> SteeringVector:
    """The vector that fits the data best, with its metrics: at the best of the layers (`search`), or at all of them jointly."""
    most = steps_of_search(len(layers), config) if search else config.steps
    with frozen(model), tqdm(total=most + min(config.steps, CONTROL_STEPS), desc="fit", unit="step") as bar:
        on_step = moving(bar, model, data)
        if search:
            fits = search_layers(model, data, layers, config, on_step=on_step)
        else:
            fits = [fit_layers(model, data, layers, config, on_step=on_step)]
        best = fits[0]
        metrics = heldout_metrics(model, data, fits, best, config, on_step=on_step)
    source = VectorSource.of(
        model,
        method=f"fitted by {config.objective} to {what}, added at {config.positions} tokens",
        prompt=prompt,
        chat_fingerprint=chat_fingerprint(model.tokenizer),
        seed=config.seed,
        positions=config.positions,
    )
    return SteeringVector(best.layers, best.directions, source, metrics)


def moving(bar: tqdm, model: "TransformerBridge", data: FitData) -> Callable[[], None]:
    """Move the bar by a step, and say what all of them cost, which stop early where nothing is gained."""
    batches = [rows.batch for rows in (*data.train, *data.validation, *data.heldout)]
    n_tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
    hf = huggingface_model(model)
    largest = max(
        len(batch) * bytes_to_differentiate(hf, batch.tokens.shape[1])
        + bytes_to_compare(hf, int(batch.completion_mask.sum()))
        for batch in batches
    )
    what = f"{sum(map(len, batches)):,} rows of {n_tokens:,} tokens, at most {bar.total:,} steps"
    cost: Cost | None = None

    def step() -> None:
        nonlocal cost
        bar.update()
        if cost is None:  # what went before the first step, preparing the layers, is no measure of the others
            cost = Cost(bar, what, n_parts=(bar.total or 1) - 1, n_bytes=largest)
        cost.after(bar.n - 1)

    return step


def _chosen_layers(model: "TransformerBridge", layers: Layers) -> tuple[int, ...]:
    if isinstance(layers, str):
        if layers not in ("best", "all"):
            raise ValueError(f"layers={layers!r} is not known. Allowed: a layer, several, 'best' or 'all'.")
        return tuple(range(model.cfg.n_layers))
    given = (layers,) if isinstance(layers, int) else tuple(layers)
    if not given or len(set(given)) != len(given):
        raise ValueError(f"Got layers={given}. Give at least one, each once.")
    return tuple(sorted(check_layer(model, layer) for layer in given))
