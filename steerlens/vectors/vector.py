"""SteeringVector: directions in the residual stream, with where they come from and what was measured."""

import html
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlens.files import atomic_path
from steerlens.models import model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SCHEMA_VERSION = "1"


@dataclass(frozen=True)
class VectorSource:
    """Where a vector comes from; travels in its file.

    `chat_fingerprint` is that of the context without prompt, in which the vector is meant to act.
    """

    model: str
    method: str
    prompt: str | None = None
    chat_fingerprint: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class SteeringVector:
    """One direction a layer, in units of the residual stream.

    `directions[i]` belongs to the output of block `layers[i]` (0 <= l < n_layers; no embedding slot).

    Raises:
        ValueError: layers are repeated, negative or as many as there are no directions, or a direction is
            not finite.
    """

    layers: tuple[int, ...]
    directions: Float[Tensor, "layer d_model"]
    source: VectorSource
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.directions) or len(set(self.layers)) != len(self.layers):
            raise ValueError(
                f"Got layers {self.layers} for {len(self.directions)} directions. Give one distinct layer each."
            )
        if any(layer < 0 for layer in self.layers):
            raise ValueError(f"Got layers {self.layers}. Layers name block outputs, 0 and up; none is negative.")
        if not torch.isfinite(self.directions).all():
            raise ValueError("A direction holds NaN or infinity. Was the model run in half precision?")
        object.__setattr__(self, "directions", self.directions.detach().float().cpu())

    def at(self, layer: int) -> "SteeringVector":
        """The part of the vector at one layer.

        Raises:
            ValueError: the vector has no direction there.
        """
        if layer not in self.layers:
            raise ValueError(f"The vector has no direction at layer {layer}. It has layers {self.layers}.")
        return replace(self, layers=(layer,), directions=self.directions[[self.layers.index(layer)]])

    def __mul__(self, strength: float) -> "SteeringVector":
        return replace(self, directions=self.directions * strength, metrics={})

    __rmul__ = __mul__

    @property
    def unit(self) -> Float[Tensor, "layer d_model"]:
        """Directions of norm 1; a zero direction stays zero."""
        return torch.nn.functional.normalize(self.directions, dim=-1)

    @property
    def norms(self) -> dict[int, float]:
        """Euclidean norm at each layer."""
        return dict(zip(self.layers, self.directions.norm(dim=-1).tolist(), strict=True))

    def cosine(self, other: "SteeringVector") -> dict[int, float]:
        """Cosine with `other` at each layer that both have."""
        shared = [layer for layer in self.layers if layer in other.layers]
        return {layer: float((self.at(layer).unit * other.at(layer).unit).sum()) for layer in shared}

    def strength_along(self, other: "SteeringVector") -> dict[int, float]:
        """<self, other> / <other, other> at each layer that both have: 1 where self holds `other` at full strength."""
        norms = other.norms
        return {
            layer: float((self.at(layer).directions * other.at(layer).unit).sum()) / norms[layer]
            for layer in self.cosine(other)
        }

    def check_model(self, model: "TransformerBridge") -> None:
        """Refuse a model that the vector was not made on.

        Raises:
            ValueError: another model, another d_model, or a layer that the model does not have.
        """
        d_model, n_layers, name = model.cfg.d_model, model.cfg.n_layers, model_name(model)
        if self.directions.shape[1] != d_model or max(self.layers) >= n_layers:
            raise ValueError(
                f"The vector has d_model={self.directions.shape[1]} and layers {self.layers}, but {name!r} has "
                f"d_model={d_model} and layers 0..{n_layers - 1}. Fit or capture a vector on this model."
            )
        if self.source.model != name:
            raise ValueError(
                f"The vector was made on {self.source.model!r} and would act on {name!r}, where the same direction "
                "means something else. To do so on purpose, pass vector.for_model(model)."
            )

    def for_model(self, model: "TransformerBridge") -> "SteeringVector":
        """The same directions, declared to be meant for `model`."""
        return replace(self, source=replace(self.source, model=model_name(model)))

    def summary(self) -> str:
        """What the vector is and how well it does, in words."""
        norms = ", ".join(f"{norm:.2f} at layer {layer}" for layer, norm in self.norms.items())
        origin = f"{self.source.method}, on {self.source.model}"
        lines = [f"Steering vector ({origin}).", f"Norm: {norms}."]
        if self.source.prompt is not None:
            lines.insert(1, f"Prompt: {self.source.prompt!r}.")
        m = self.metrics
        if "kl_explained" in m:
            lines += [
                f"Added after block {self.layers[0]}, it explains {m['kl_explained']:.0%} of what the prompt does to the "
                f"predictions (held-out rows; 95 % interval {m['kl_explained_low']:.0%} to {m['kl_explained_high']:.0%}; "
                f"the prompt's effect is {m['kl_prompt']:.3f} nats a token).",
                f"The mean difference at its best layer and strength explains {m['kl_explained_mean_difference']:.0%}, "
                f"random vectors of the same norm {m['kl_explained_random']:.0%}, a vector fitted to shuffled targets "
                f"{m['kl_explained_shuffled']:.0%} (below zero is worse than no vector).",
                f"Its likeliest token is the prompted model's at {m['top1_agreement']:.0%} of tokens, without the vector "
                f"at {m['top1_agreement_plain']:.0%}. Its norm is {m['relative_norm']:.2f} of the residual's, its cosine "
                f"with the mean difference {m['cosine_mean_difference']:.2f}.",
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in self.summary().split("\n"))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (tensors `layer.<l>`, JSON in its metadata), atomically."""
        metadata = {
            "format": "steerlens.vector",
            "schema_version": SCHEMA_VERSION,
            "layer_convention": "resid_post of block l, 0-based",
            "source": json.dumps(asdict(self.source)),
            "metrics": json.dumps(self.metrics),
        }
        tensors = {f"layer.{layer}": row.contiguous() for layer, row in zip(self.layers, self.directions, strict=True)}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "SteeringVector":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a steering vector, or it is damaged.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no vector file {path}. Give the path that save() wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                if metadata.get("format") != "steerlens.vector" or metadata["schema_version"] != SCHEMA_VERSION:
                    raise ValueError(
                        f"{path} is a safetensors file, but not a steering vector of schema {SCHEMA_VERSION}."
                    )
                layers = tuple(sorted(int(name.removeprefix("layer.")) for name in file.keys()))  # noqa: SIM118
                directions = torch.stack([file.get_tensor(f"layer.{layer}") for layer in layers])
            return cls(
                layers, directions, VectorSource(**json.loads(metadata["source"])), json.loads(metadata["metrics"])
            )
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}). Make the vector anew.") from error
