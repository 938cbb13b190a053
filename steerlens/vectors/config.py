"""What a fit depends on; the command line's flags come from here."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from steerlens.checks import number, whole
from steerlens.text.number_lists import list_length
from steerlens.text.positions import POSITIONS, Positions

Objective = Literal["forward_kl", "reverse_kl", "cross_entropy", "centred_mse"]
Parametrization = Literal["free", "direction_and_strength"]
Budget = Literal["quick", "default", "thorough"]

SHORTEST = 32
"""Tokens of the completions of a fit where a list of numbers takes fewer."""


@dataclass(frozen=True)
class FitConfig:
    """How a prompt vector is fitted.

    Args:
        objective: what is minimised (`steerlens.vectors.objectives`); what is reported is forward KL always.
        positions: the tokens at which the vector is added.
        parametrization: "free" fits v; "direction_and_strength" fits v = s u / |u|, so that a step turns the vector
            and scales it separately (arXiv 2605.05983).
        l2: weight of |v|^2 / |h|^2, the vector's squared norm in units of the residual's, in nats.
        n_train: rows for the gradient. The prompts of all rows are distinct.
        n_validation: rows for choices (strength, step, layer).
        n_heldout: rows for the reported numbers.
        max_new_tokens: length of the sampled completions; None takes 32, or as many as a list of ten numbers needs.
        learning_rate: of Adam, in natural units (`steerlens.vectors.sensitivity`): a step of 1 in every coordinate
            would change the predictions by as much as the prompt does. The same value suits every model.
        steps: the most steps of a descent. It ends earlier where nothing is gained.
        batch_size: rows a step.
        candidates: where the best layer is searched, how many are tried; one backward pass chooses them.
        top_k: targets keep the probabilities of that many tokens, and the rest as one; vocabularies of up to
            8192 tokens are kept whole.
        seed: fixes completions, batches and random vectors.

    Raises:
        ValueError: an objective, positions or a parametrization that is not known, or a number that is not positive.
    """

    objective: Objective = "forward_kl"
    positions: Positions = "all"
    parametrization: Parametrization = "free"
    l2: float = 0.0
    n_train: int = 256
    n_validation: int = 48
    n_heldout: int = 128
    max_new_tokens: int | None = None
    learning_rate: float = 0.15
    steps: int = 320
    batch_size: int = 8
    candidates: int = 4
    top_k: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "objective": get_args(Objective),
            "positions": POSITIONS,
            "parametrization": get_args(Parametrization),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r} is not known. Allowed: {', '.join(values)}.")
        for name in (
            "n_train",
            "n_validation",
            "n_heldout",
            "steps",
            "batch_size",
            "candidates",
            "top_k",
        ):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} has to be a whole number, 1 or more.")
        if self.max_new_tokens is not None and (not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1):
            raise ValueError(f"max_new_tokens={self.max_new_tokens} has to be a whole number, 1 or more, or None.")
        number()(self.learning_rate, "learning_rate")
        number()(self.l2, "l2")
        whole(0)(self.seed, "seed")
        if not (self.learning_rate > 0 and self.l2 >= 0):
            raise ValueError(
                f"Got learning_rate={self.learning_rate} and l2={self.l2}. The one has to be above 0, the other at least 0."
            )

    def completion_length(self, tokenizer: Any) -> int:
        """`max_new_tokens`, or what its None stands for with this tokenizer."""
        return self.max_new_tokens or list_length(tokenizer, at_least=SHORTEST)

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return self.n_train + self.n_validation + self.n_heldout

    @classmethod
    def of_budget(cls, budget: Budget, **changes: Any) -> "FitConfig":
        """A fit of known size, with some fields changed.

        "quick" is for a first look (a fifth of the default's cost), "thorough" for figures to publish (six times).

        Raises:
            ValueError: a budget that is not known.
        """
        if not isinstance(budget, str) or budget not in BUDGETS:
            raise ValueError(f"budget={budget!r} is not known. Allowed: {', '.join(BUDGETS)}.")
        return replace(BUDGETS[budget], **changes)


BUDGETS: dict[str, FitConfig] = {
    "quick": FitConfig(n_train=64, n_validation=24, n_heldout=48, steps=80, candidates=2),
    "default": FitConfig(),
    "thorough": FitConfig(n_train=1024, n_validation=128, n_heldout=512, steps=1280, candidates=16),
}
