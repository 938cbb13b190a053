"""The report of one fitted vector, and the sections that it shares with the report of an analysis."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from steerlens.figures.report import Report, Section, write_report
from steerlens.figures.vector_plots import plot_controls, plot_prompt_fit, plot_readout
from steerlens.vectors.metrics import LayerMetrics
from steerlens.vectors.readout import Token
from steerlens.vectors.vector import SteeringVector


def write_fit_report(
    path: str | Path, vector: SteeringVector, tokens: tuple[Sequence[Token], Sequence[Token]] | None = None
) -> None:
    """Write what `fit_prompt_vector` found as one HTML file.

    Args:
        tokens: what the vector promotes and suppresses, as `promoted_tokens` gives it; None leaves that out.
    """
    sections = vector_sections(vector)
    if tokens is not None:
        sections.append(readout_section(*tokens))
    write_report(path, Report("How far is this prompt a vector?", f"Prompt: {vector.source.prompt}", sections))


def vector_sections(vector: SteeringVector) -> list[Section]:
    """How much one vector explains, next to its controls, and by layer where layers were compared."""
    sections = [
        Section(
            title="One vector against the prompt",
            question="How much of the prompt's effect on the predictions does one vector reproduce?",
            figure=plot_controls(vector),
            number=vector.summary(),
            meaning=(
                "kl_explained = 1 - KL(prompted || steered) / KL(prompted || plain), on completions sampled from the "
                "prompted model: 100 % is the prompt itself, 0 % no vector at all, and less than 0 % is worse than doing "
                "nothing."
            ),
            doubts=(
                "All numbers are of held-out questions that neither the fit nor the choice of the layer has seen, but of "
                "the same kind of question: how far the vector acts on other questions is not measured here."
            ),
        )
    ]
    by_layer = vector.metrics.by_layer or {}
    return [*sections, _layer_section(vector, by_layer)] if len(by_layer) > 1 else sections


def _layer_section(vector: SteeringVector, by_layer: Mapping[int, LayerMetrics]) -> Section:
    explained = {layer: fit.kl_explained for layer, fit in by_layer.items()}
    others = [f"{value:.0%} at layer {layer}" for layer, value in explained.items() if layer not in vector.layers]
    chosen = vector.layers[0]
    return Section(
        title="Which layer",
        question="Each layer got a fit of its own. Where does one vector do best?",
        figure=plot_prompt_fit(vector),
        number=f"Layer {chosen}: {explained[chosen]:.0%} of the prompt's effect, on validation rows; {', '.join(others)}.",
        meaning=(
            "Layer l is the output of block l. The fit went on at the best layer, for more steps than the others got; the "
            "section above has that vector's held-out numbers."
        ),
        doubts=(
            "The best of several is chosen on these very rows, so its bar is a little too high. Layers whose bars are "
            "close may well change places with another seed."
        ),
    )


def readout_section(promoted: Sequence[Token], suppressed: Sequence[Token]) -> Section:
    """The tokens that a vector promotes and suppresses."""
    up, down = (", ".join(repr(token.text) for token in tokens[:5]) for tokens in (promoted, suppressed))
    return Section(
        title="What it says",
        question="Added to the mean residual at the last prompt token and read through the unembedding, which tokens rise?",
        figure=plot_readout(promoted, suppressed),
        number=f"Most promoted: {up}. Most suppressed: {down}.",
        meaning=(
            "A logit lens: unembed(ln(h + v)) - unembed(ln(h)). Words of the prompt at the top mean that the vector names "
            "its subject directly."
        ),
        doubts=(
            "The lens skips all blocks above the vector's layer, which may turn it into something else: the lower the "
            "layer, the less this list says."
        ),
    )
