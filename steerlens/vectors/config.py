"""What a fit depends on; the command line's flags come from here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FitConfig:
    """How a prompt vector is fitted.

    Args:
        n_train, n_validation, n_heldout: rows for the gradient, for choices (strength, step, layer), and for
            the reported numbers. Their prompts are distinct.
        max_new_tokens: length of the sampled completions.
        learning_rate: of Adam, in units of the residual's root mean square at the layer; falls linearly to 0.
        steps, batch_size: of the descent; the best vector on validation rows is kept.
        seed: fixes completions, batches and random vectors.
    """

    n_train: int = 768
    n_validation: int = 96
    n_heldout: int = 192
    max_new_tokens: int = 32
    learning_rate: float = 0.4
    steps: int = 300
    batch_size: int = 64
    seed: int = 0

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return self.n_train + self.n_validation + self.n_heldout
