"""What a fit depends on; the command line's flags come from here."""

from dataclasses import dataclass
from typing import Literal, get_args

from steerlens.text.positions import POSITIONS, Positions

Objective = Literal["forward_kl", "reverse_kl", "cross_entropy", "centred_mse"]
Parametrization = Literal["free", "direction_and_strength"]


@dataclass(frozen=True)
class FitConfig:
    """How a prompt vector is fitted.

    Args:
        objective: what is minimised (`steerlens.vectors.objectives`); what is reported is forward KL always.
        positions: the tokens at which the vector is added.
        parametrization: "free" fits v; "direction_and_strength" fits v = exp(s) u / |u|, so that a step turns the
            vector and scales it separately (arXiv 2605.05983).
        l2: weight of |v|^2 / |h|^2, the vector's squared norm in units of the residual's, in nats.
        n_train, n_validation, n_heldout: rows for the gradient, for choices (strength, step, layer), and for
            the reported numbers. Their prompts are distinct.
        max_new_tokens: length of the sampled completions.
        learning_rate: of Adam, in units of the residual's root mean square at the layer; falls linearly to 0.
        steps, batch_size: of the descent; the best vector on validation rows is kept.
        patience: steps without progress on validation rows after which the descent ends.
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
    n_train: int = 1536
    n_validation: int = 96
    n_heldout: int = 512
    max_new_tokens: int = 32
    learning_rate: float = 0.4
    steps: int = 300
    batch_size: int = 64
    patience: int = 100
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
            "max_new_tokens",
            "steps",
            "batch_size",
            "patience",
            "top_k",
        ):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} has to be a whole number, 1 or more.")
        if not (self.learning_rate > 0 and self.l2 >= 0):
            raise ValueError(
                f"Got learning_rate={self.learning_rate} and l2={self.l2}. The one has to be above 0, the other at least 0."
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is negative. Give 0 or more.")

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return self.n_train + self.n_validation + self.n_heldout
