"""The part of a result that a figure shows. Figures take the result whole, or the part by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.checks import WrongInput, shown
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.readout import Token
from steerlens.vectors.vector import SteeringVector

MOST_TICKS = 16


def metrics_of(result: Any) -> FitMetrics:
    """What was measured of a fitted vector; of the vector, an analysis, or the metrics themselves.

    Raises:
        WrongInput: it is nothing of that.
    """
    metrics = getattr(getattr(result, "vector", result), "metrics", result)
    if not isinstance(metrics, FitMetrics):
        raise WrongInput(
            f"Got {shown(result)}. Give what fit_prompt_vector or analyze_prompt returned, or vector.metrics."
        )
    return metrics


def tokens_of(result: Any) -> list[tuple[str, float]]:
    """Tokens with their changes: those that rise, and those that fall from the least on.

    Raises:
        WrongInput: it is no analysis, no audit, not what `promoted_tokens` returns, and no list of tokens.
    """
    if hasattr(result, "promoted"):
        return tokens_of((list(result.promoted), list(getattr(result, "suppressed", ()))))
    if isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, list) for part in result):
        return [*map(_pair, result[0]), *map(_pair, reversed(result[1]))]
    if isinstance(result, str | Mapping) or not isinstance(result, Sequence):
        raise WrongInput(
            f"Got {shown(result)}. Give what promoted_tokens, analyze_prompt or audit_dataset returned, or tokens as "
            '[("owl", 2.5), ...].'
        )
    return [_pair(token) for token in result]


def _pair(token: Any) -> tuple[str, float]:
    if isinstance(token, Token):
        return token.text, token.change
    if isinstance(token, tuple) and len(token) == 2 and isinstance(token[0], str):
        return token
    raise WrongInput(f'Got {shown(token)} for a token. Write ("owl", 2.5), a text and the change of its logit.')


def cosines_of(result: Any) -> Mapping[str, tuple[float, float]]:
    """(raw, mean-centred) cosine by name, of an analysis or as they are.

    Raises:
        WrongInput: it is neither.
        ValueError: there are none.
    """
    cosines = getattr(result, "cosines", result)
    pairs = isinstance(cosines, Mapping) and all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in cosines.values()
    )
    if not pairs:
        raise WrongInput(
            f"Got {shown(result)}. Give what analyze_prompt returned, vectors by name, or cosines as {{'owl': (0.9, 0.4)}}, each "
            "as it is and mean-centred."
        )
    if not cosines:
        raise ValueError("There are no cosines: nothing was compared. Give analyze_prompt a trait, or known vectors.")
    return cosines


def are_vectors(result: Any) -> bool:
    """Whether it is vectors by name."""
    return (
        isinstance(result, Mapping) and bool(result) and all(isinstance(one, SteeringVector) for one in result.values())
    )


def traces_of(result: Any, kind: type) -> dict[str, list[Any]]:
    """For each name its traces, one a seed, of one trace, one a name, or several.

    Raises:
        WrongInput: something else is among them.
    """
    named = dict(result) if isinstance(result, Mapping) else {"": result}
    if not named:
        raise ValueError(f"There are no traces to plot. Give at least one {kind.__name__}, under a name.")
    found = {name: [one] if isinstance(one, kind) else one for name, one in named.items()}
    for name, traces in found.items():
        if not isinstance(traces, Sequence) or not traces or not all(isinstance(one, kind) for one in traces):
            raise WrongInput(
                f"Got {shown(traces)}{f' for {name!r}' if name else ''}. Give a {kind.__name__}, one for each name "
                "({'teacher': trace, ...}), or several, one a seed."
            )
    return found


def the_layer(layers: Sequence[int], layer: int | None, of: str = "") -> int:
    """The place of a layer among those that were measured; of a single one where none is named.

    Raises:
        ValueError: it was not measured, or none is named and there are several.
    """
    if layer is None and len(layers) == 1:
        return 0
    if layer is None:
        raise ValueError(f"Several layers were measured. Say which: layer=, one of {tuple(layers)}.")
    if layer not in layers:
        raise ValueError(f"layer={layer} was not measured{of and f' of {of!r}'}. Choose one of {tuple(layers)}.")
    return list(layers).index(layer)


def every(n: int) -> int:
    """Every how many of `n` ticks has a label."""
    return 1 + (n - 1) // MOST_TICKS
