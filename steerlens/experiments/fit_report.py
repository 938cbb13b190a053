"""The report of one fitted vector."""

from pathlib import Path

from steerlens.figures.report import Section, write_report
from steerlens.figures.vector_plots import plot_prompt_fit
from steerlens.vectors.vector import SteeringVector


def write_fit_report(path: str | Path, vector: SteeringVector) -> None:
    """Write what `fit_prompt_vector` found as one HTML file."""
    write_report(
        path,
        title="How far is this prompt a vector?",
        lead=f"Prompt: {vector.source.prompt}",
        sections=[
            Section(
                title="One vector against the prompt",
                question="How much of the prompt's effect on the predictions does one vector reproduce?",
                figure=plot_prompt_fit(vector.metrics),
                number=vector.summary(),
                meaning=(
                    "kl_explained = 1 - KL(prompted || steered) / KL(prompted || plain), on completions sampled from the "
                    "prompted model: 100 % is the prompt itself, 0 % no vector at all."
                ),
                doubts="The figure shows validation rows, on which the layer was chosen; the numbers are of held-out rows.",
            )
        ],
    )
