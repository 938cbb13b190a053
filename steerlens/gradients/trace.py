"""What tracing finds: at every step, how the activation gradients of every row lie to a steering vector."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from steerlens.arguments import checked
from steerlens.files import atomic_path, reading
from steerlens.short import some

QUANTITIES = ("pull", "cosine", "norm")


@dataclass(frozen=True)
class GradientTrace:
    """Gradients of every row at every step, projected onto one direction a layer.

    `pull`, `cosine` and `norm` are [step batch layer], NaN where the last batch of an epoch is short. Each
    row's gradient is that of its own loss (nats, mean over its completion tokens), so that batch size does
    not rescale it.
    """

    layers: tuple[int, ...]
    pull: Float[Tensor, "step batch layer"]
    cosine: Float[Tensor, "step batch layer"]
    norm: Float[Tensor, "step batch layer"]

    def __repr__(self) -> str:
        n_steps, n_rows, _ = self.pull.shape
        means = self.cosine.flatten(0, 1).nanmean(0).tolist() if n_steps else []
        cosines = some([f"{cosine:+.3f}" for cosine in means])
        return f"GradientTrace: {n_steps} steps of {n_rows} rows, layers {some(self.layers)}; mean cosine with v: {cosines}"

    @property
    def mean_pull(self) -> Float[Tensor, "step layer"]:
        """Mean over the rows of each step."""
        return self.pull.nanmean(1)

    @property
    def cumulative_pull(self) -> Float[Tensor, "step layer"]:
        """Sum over steps of the mean pull: the push that has come together so far, in nats per unit."""
        return self.mean_pull.cumsum(0)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {name: getattr(self, name).contiguous() for name in QUANTITIES}
        with atomic_path(path) as temporary:
            save_file({**tensors, "layers": torch.tensor(self.layers)}, temporary)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "GradientTrace":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else, or is damaged.
        """
        with reading(path):
            tensors = load_file(path)
            layers = tuple(tensors.pop("layers").tolist())
            shapes = {tuple(tensors[name].shape) for name in QUANTITIES}
            if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or shape[-1] != len(layers):
                raise TypeError("pull, cosine and norm are not all of one shape [step batch layer]")
            return cls(layers=layers, **tensors)

    @classmethod
    def joined(cls, layers: tuple[int, ...], parts: Sequence["GradientTrace"]) -> "GradientTrace":
        """Parts that follow one another, as one trace as wide as the widest."""
        width = max((part.pull.shape[1] for part in parts), default=0)

        def join(name: str) -> Float[Tensor, "step batch layer"]:
            tensors = [getattr(part, name) for part in parts]
            padded = [torch.nn.functional.pad(t, (0, 0, 0, width - t.shape[1]), value=torch.nan) for t in tensors]
            return torch.cat(padded) if padded else torch.zeros(0, 0, len(layers))

        return cls(layers, *(join(name) for name in QUANTITIES))
