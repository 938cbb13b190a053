"""What was measured of a fitted vector, on rows that the fit has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from string import Formatter
from typing import Any

from steerlens.records import as_json, from_json
from steerlens.stats import Interval

NOT_MEASURED = math.nan

MEASURED = (
    (
        "Added after {where}, it explains {kl_explained:.0%} of what the {cause} does to the predictions (held-out rows",
        "; 95 % interval {kl_explained_low:.0%} to {kl_explained_high:.0%}",
        "; the {cause}'s effect is {kl_prompt:.3f} nats a token",
        ")",
    ),
    (
        "The mean difference at its best layer and strength explains {kl_explained_mean_difference:.0%}",
        ", random vectors of the same norm {kl_explained_random:.0%}",
        ", one fitted to shuffled targets at its best strength {kl_explained_shuffled:.0%}",
        " (below zero is worse than no vector)",
    ),
    (
        "Its likeliest token is the {example} model's at {top1_agreement:.0%} of tokens",
        ", without the vector at {top1_agreement_plain:.0%}",
    ),
    (
        "Its norm is {relative_norm:.2f} of the residual's",
        ", its cosine with the mean difference {cosine_mean_difference:.2f}",
    ),
)
"""Sentences on what was measured of a fitted vector, in parts that are left out where a number is missing."""


@dataclass(frozen=True)
class LayerMetrics:
    """One of the layers that a fit compared, on validation rows.

    Args:
        kl_explained: of the layer's own fit.
        kl_explained_mean_difference: of the mean difference at that layer, at its best strength.
    """

    kl_explained: float
    kl_explained_mean_difference: float


@dataclass(frozen=True)
class FitMetrics:
    """The quality of a fitted vector on held-out rows, and its controls. What was not measured is NaN or None.

    kl_explained is 1 - KL(prompted || steered) / KL(prompted || plain), on answers sampled from the prompted model: 1 is the
    prompt itself, 0 no vector at all, and below 0 is worse than no vector.

    Args:
        kl_explained: of this vector.
        kl_explained_low: the lower end of its 95 % bootstrap interval over questions.
        kl_explained_high: the upper end.
        kl_prompt: KL(prompted || plain), in nats a token: how large the prompt's effect is.
        kl_explained_mean_difference: of the mean difference, at its best layers and strength on validation rows.
        kl_explained_random: the mean over random vectors of the same norm.
        kl_explained_shuffled: of a vector fitted to the targets of other tokens, at its best strength on validation rows.
        layers_mean_difference: those best layers.
        top1_agreement: the share of tokens whose likeliest continuation is the prompted model's.
        top1_agreement_plain: the same without the vector.
        shift_correlation: of the changes in log-probability, steered and prompted, averaged over tokens.
        cosine_mean_difference: with the mean difference; a mean over layers.
        relative_norm: of the vector, over the residual's norm at the tokens that predict; a mean over layers.
        coarsening: the share of KL(prompted || plain) that targets of the likeliest tokens lose; 0 where they are whole.
        converged: whether more steps would have gained nothing.
        by_layer: the layers that were compared, each with a fit of its own, on validation rows; None where none were.
    """

    kl_explained: float = NOT_MEASURED
    kl_explained_low: float = NOT_MEASURED
    kl_explained_high: float = NOT_MEASURED
    kl_prompt: float = NOT_MEASURED
    kl_explained_mean_difference: float = NOT_MEASURED
    kl_explained_random: float = NOT_MEASURED
    kl_explained_shuffled: float = NOT_MEASURED
    layers_mean_difference: tuple[int, ...] = ()
    top1_agreement: float = NOT_MEASURED
    top1_agreement_plain: float = NOT_MEASURED
    shift_correlation: float = NOT_MEASURED
    cosine_mean_difference: float = NOT_MEASURED
    relative_norm: float = NOT_MEASURED
    coarsening: float = NOT_MEASURED
    converged: bool | None = None
    by_layer: dict[int, LayerMetrics] | None = None

    def __repr__(self) -> str:
        others = [f"{name} {value:.3f}" for name, value in self.known.items() if not name.startswith("kl_explained")]
        compared = f"; {len(self.by_layer)} layers compared" if self.by_layer else ""
        return f"FitMetrics: kl_explained {self.interval.text(3)}" + "".join(f", {one}" for one in others) + compared

    @property
    def interval(self) -> Interval:
        """kl_explained with its interval."""
        return Interval(self.kl_explained, self.kl_explained_low, self.kl_explained_high)

    @property
    def known(self) -> dict[str, float]:
        """The numbers that were measured, by name."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.type is float}
        return {name: value for name, value in numbers.items() if not math.isnan(value)}

    def in_words(self, layers: Sequence[int], *, of_prompt: bool) -> list[str]:
        """Sentences on what was measured of a vector at these layers, fitted to a prompt or else to a fine-tuning."""
        cause, example = ("prompt", "prompted") if of_prompt else ("fine-tuning", "fine-tuned")
        where = (
            f"block {layers[0]}" if len(layers) == 1 else f"blocks {', '.join(map(str, layers))}, one direction each"
        )
        words = {"where": where, "cause": cause, "example": example}
        sentences = []
        for parts in MEASURED:
            known = [part for part in parts if _names(part) <= self.known.keys() | words.keys()]
            if known[:1] == [parts[0]]:
                sentences.append("".join(known).format(**words, **self.known) + ".")
        return sentences

    def to_json(self) -> dict[str, Any]:
        """What was measured, as JSON can hold it."""
        empty = as_json(FitMetrics())
        return {name: value for name, value in as_json(self).items() if value != empty[name]}

    @classmethod
    def of_json(cls, found: Any, *, where: str) -> "FitMetrics":
        """What `to_json` returned.

        Raises:
            ValueError: a metric is unknown or of the wrong type; names each.
        """
        return from_json(cls, found, where=where)


def _names(part: str) -> set[str]:
    """What a part of a sentence has to be filled with."""
    return {name for _, name, *_ in Formatter().parse(part) if name}
