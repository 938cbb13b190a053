"""SteeringVector: directions in the residual stream, with where they come from and what was measured."""

import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlens.arguments import checked
from steerlens.checks import WrongInput, shown
from steerlens.files import atomic_path
from steerlens.models.bridge import check_bridge
from steerlens.models.identity import model_name
from steerlens.short import cut, some
from steerlens.vectors.exchange import ExchangedVector
from steerlens.vectors.hub import HubVector
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.source import VectorSource

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

FORMAT, SCHEMA_VERSION = "steerlens.vector", "1"


@dataclass(frozen=True, eq=False)
class SteeringVector(HubVector, ExchangedVector):
    """One direction a layer, in units of the residual stream.

    `directions[i]` belongs to the output of block `layers[i]` (0 <= l < n_layers; no embedding slot).

    Raises:
        WrongInput: an argument of the wrong kind.
        ValueError: layers are repeated, negative, none, or not as many as directions, or a direction is not finite.
    """

    layers: tuple[int, ...]
    directions: Float[Tensor, "layer d_model"]
    source: VectorSource
    metrics: FitMetrics = field(default_factory=FitMetrics)

    def __repr__(self) -> str:
        layers = f"layer{'s' * (len(self.layers) > 1)} {some(self.layers)}"
        norms = some([f"{norm:.3g}" for norm in self.norms.values()])
        explained = self.metrics.kl_explained
        quality = "" if math.isnan(explained) else f", kl_explained {explained:.3f}"
        return cut(
            f"SteeringVector: {layers} of {self.source.model}, norm {norms}, d_model {self.directions.shape[1]}{quality}, "
            f"{cut(self.source.method, 160)}"
        )

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "layers", tuple(map(int, self.layers)))
        if self.directions.ndim != 2 or not self.directions.numel():
            raise ValueError(
                f"Got directions of shape {tuple(self.directions.shape)}. Give [layer, d_model], at least one layer; "
                "write directions[None] for a single one."
            )
        if len(self.layers) != len(self.directions) or len(set(self.layers)) != len(self.layers):
            raise ValueError(
                f"Got layers {self.layers} for {len(self.directions)} directions. Give one distinct layer each."
            )
        if any(layer < 0 for layer in self.layers):
            raise ValueError(f"Got layers {self.layers}. Layers name block outputs, 0 and up; none is negative.")
        if not torch.isfinite(self.directions).all():
            raise ValueError("A direction holds NaN or infinity. Was the model run in half precision?")
        object.__setattr__(self, "directions", self.directions.detach().float().cpu())

    def _check_kinds(self) -> None:
        layers: Any = self.layers
        if not isinstance(layers, Sequence) or not all(isinstance(layer, Integral) for layer in layers):
            raise WrongInput(f"layers must be block numbers in a tuple, such as (12,), got {shown(layers)}.")
        if not isinstance(self.directions, Tensor):
            raise WrongInput(
                f"directions must be a tensor [layer, d_model], got {shown(self.directions)}. Write torch.tensor(...)."
            )
        if not isinstance(self.source, VectorSource):
            raise WrongInput(
                f"source must be a VectorSource, got {shown(self.source)}. Write VectorSource.of(model, method='by hand')."
            )
        if not isinstance(self.metrics, FitMetrics):
            raise WrongInput(
                f"metrics must be a FitMetrics, got {shown(self.metrics)}. Leave it out where nothing was measured."
            )

    def __eq__(self, other: object) -> bool:
        """Whether both are the same directions at the same layers, of the same source; metrics do not count."""
        if not isinstance(other, SteeringVector):
            return NotImplemented
        same = self.layers == other.layers and self.source == other.source
        return same and torch.equal(self.directions, other.directions)

    def __hash__(self) -> int:
        return hash((self.layers, self.fingerprint))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the directions, in hex digits."""
        return hashlib.sha256(self.directions.numpy().tobytes()).hexdigest()

    def at(self, *layers: int) -> "SteeringVector":
        """The part of the vector at the given layers.

        Raises:
            ValueError: the vector has no direction at one of them.
        """
        if not layers:
            raise ValueError(f"Got no layer. The vector has layers {self.layers}; write vector.at({self.layers[0]}).")
        if missing := [layer for layer in layers if layer not in self.layers]:
            several = " Write vector.at(1, 2) for several." if isinstance(missing[0], list | tuple) else ""
            raise ValueError(
                f"The vector has no direction at layer {missing[0]!r}. It has layers {self.layers}.{several}"
            )
        return replace(self, layers=layers, directions=self.directions[[self.layers.index(layer) for layer in layers]])

    def __mul__(self, strength: float) -> "SteeringVector":
        if not isinstance(strength, Real):
            return NotImplemented
        if not math.isfinite(strength):
            raise ValueError(f"A vector cannot be multiplied by {strength}. Give a finite number.")
        return self._derived(strength * self.directions, f"{float(strength):g} times ({self.source.method})")

    __rmul__ = __mul__

    def __neg__(self) -> "SteeringVector":
        return -1 * self

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        """The sum, layer by layer.

        Raises:
            ValueError: the vectors are of other models or have other layers.
        """
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self._combined(other, self.directions + self._aligned(other), "plus")

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        """The difference, layer by layer; raises as the sum does."""
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self._combined(other, self.directions - self._aligned(other), "minus")

    def along(self, other: "SteeringVector") -> "SteeringVector":
        """<v, o> / <o, o> o: the component along `other`, at each layer that both have.

        Raises:
            ValueError: the vectors are of other models or share no layer.
        """
        mine, theirs = self._shared(other, same_model=True)
        component = (mine.directions * theirs.unit).sum(-1, keepdim=True) * theirs.unit
        return mine._combined(theirs, component, "along")

    def orthogonal_to(self, other: "SteeringVector") -> "SteeringVector":
        """v - <v, o> / <o, o> o: what is left without the component along `other`; raises as `along` does."""
        mine, theirs = self._shared(other, same_model=True)
        return mine._combined(theirs, mine.directions - mine.along(theirs).directions, "without the component along")

    def _derived(self, directions: Float[Tensor, "layer d_model"], method: str) -> "SteeringVector":
        source = replace(self.source, method=method).shortened
        return replace(self, directions=directions, source=source, metrics=FitMetrics())

    def _combined(
        self, other: "SteeringVector", directions: Float[Tensor, "layer d_model"], verb: str
    ) -> "SteeringVector":
        method = f"({self.source.words}) {verb} ({other.source.words})"
        return replace(
            self, directions=directions, source=self.source.shared_with(other.source, method), metrics=FitMetrics()
        )

    def _aligned(self, other: "SteeringVector") -> Float[Tensor, "layer d_model"]:
        mine, theirs = self._shared(other, same_model=True)
        if not len(mine.layers) == len(self.layers) == len(other.layers):
            raise ValueError(
                f"The vectors have layers {self.layers} and {other.layers}; a sum needs the same ones. "
                f"Take the shared part of both, vector.at{mine.layers}."
            )
        return theirs.directions

    def _shared(
        self, other: "SteeringVector", *, same_model: bool = False
    ) -> tuple["SteeringVector", "SteeringVector"]:
        """Both at the layers that they share, in the order of this one."""
        if not isinstance(other, SteeringVector):
            raise WrongInput(
                f"The other vector must be a SteeringVector, got {shown(other)}. Make one of a tensor with "
                "steerlens.import_tensor(tensor, model, layers=...)."
            )
        if same_model and (differences := self.source.differences(other.source)):
            raise ValueError(
                f"The vectors belong to different models: {', '.join(differences)}. Directions of different models do "
                "not compare; to combine them on purpose, declare one with vector.for_model(model)."
            )
        if self.directions.shape[1] != other.directions.shape[1]:
            raise ValueError(
                f"The vectors have d_model={self.directions.shape[1]} and {other.directions.shape[1]}. "
                "Give vectors of the same model."
            )
        shared = [layer for layer in self.layers if layer in other.layers]
        if not shared:
            raise ValueError(
                f"The vectors have layers {self.layers} and {other.layers}, none in common. Make them at the same layers."
            )
        return self.at(*shared), other.at(*shared)

    @property
    def unit(self) -> Float[Tensor, "layer d_model"]:
        """Directions of norm 1; a zero direction stays zero."""
        return torch.nn.functional.normalize(self.directions, dim=-1)

    @property
    def norms(self) -> dict[int, float]:
        """Euclidean norm at each layer."""
        return dict(zip(self.layers, self.directions.norm(dim=-1).tolist(), strict=True))

    def cosine(self, other: "SteeringVector") -> dict[int, float]:
        """Cosine with `other` at each layer that both have.

        Raises:
            ValueError: they share no layer, or differ in d_model.
        """
        mine, theirs = self._shared(other)
        return dict(zip(mine.layers, (mine.unit * theirs.unit).sum(-1).tolist(), strict=True))

    def strength_along(self, other: "SteeringVector") -> dict[int, float]:
        """<self, other> / <other, other> at each layer that both have: 1 where self holds `other` at full strength.

        Raises:
            ValueError: they share no layer, differ in d_model, or `other` is zero at a layer.
        """
        mine, theirs = self._shared(other)
        norms = theirs.directions.norm(dim=-1)
        if not norms.all():
            raise ValueError(
                "The other vector is zero at a layer, so there is no strength along it. Leave that layer out."
            )
        return dict(zip(mine.layers, ((mine.directions * theirs.unit).sum(-1) / norms).tolist(), strict=True))

    def check_model(self, model: "TransformerBridge") -> None:
        """Refuse a model that the vector was not made on.

        Raises:
            ValueError: another model, revision, bridge or checkpoint, another d_model, or a layer that the model
                does not have.
        """
        check_bridge(model)
        d_model, n_layers, name = model.cfg.d_model, model.cfg.n_layers, model_name(model)
        if self.directions.shape[1] != d_model or max(self.layers) >= n_layers:
            raise ValueError(
                f"The vector has d_model={self.directions.shape[1]} and layers {self.layers}, but {name!r} has "
                f"d_model={d_model} and layers 0..{n_layers - 1}. Fit or capture a vector on this model."
            )
        if differences := self.source.differences(VectorSource.of(model, method="")):
            raise ValueError(
                f"The vector was made on {self.source.model!r} and would act on {name!r}, where the same direction "
                f"means something else: {', '.join(differences)}. To do so on purpose, pass vector.for_model(model)."
            )

    def for_model(self, model: "TransformerBridge") -> "SteeringVector":
        """The same directions, declared to be meant for `model`; metrics of another model are left behind.

        Raises:
            WrongInput: `model` is no bridge.
        """
        check_bridge(model)
        moved = bool(self.source.differences(VectorSource.of(model, method="")))
        return replace(self, source=self.source.moved_to(model), metrics=FitMetrics() if moved else self.metrics)

    def summary(self) -> str:
        """What the vector is and how well it does, in words."""
        norms = ", ".join(f"{norm:.2f} at layer {layer}" for layer, norm in self.norms.items())
        revision = "" if self.source.revision is None else f" at revision {self.source.revision[:12]}"
        origin = f"{self.source.method}, on {self.source.model}{revision}"
        lines = [f"Steering vector ({origin}).", f"Norm: {norms}."]
        if self.source.prompt is not None:
            lines.insert(1, f"Prompt: {self.source.prompt!r}.")
        lines += self.metrics.in_words(self.layers, of_prompt=self.source.prompt is not None)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in self.summary().split("\n"))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (tensors `layer.<l>`, JSON in its metadata), atomically."""
        metadata = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "layer_convention": "resid_post of block l, 0-based",
            "source": json.dumps(asdict(self.source)),
            "metrics": json.dumps(self.metrics.to_json()),
        }
        tensors = {f"layer.{layer}": row.contiguous() for layer, row in zip(self.layers, self.directions, strict=True)}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "SteeringVector":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a steering vector, it is damaged, or it is a directory.
        """
        if Path(path).is_dir():
            raise ValueError(
                f"{path} is a directory. Read it with SteeringVector.from_pretrained, or give the file in it."
            )
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no vector file {path}. Give the path that save() wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, Any] = file.metadata() or {}
                rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged, or no safetensors file ({error}). Make the vector anew.") from error
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{path} is a safetensors file, but not a steering vector. Give one that save() wrote, or pass its "
                "tensor to steerlens.import_tensor."
            )
        if metadata.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path} is a vector of schema {metadata.get('schema_version')}, and this steerlens reads "
                f"{SCHEMA_VERSION}. Update steerlens, or make the vector anew."
            )
        try:
            layers = tuple(sorted(int(name.removeprefix("layer.")) for name in rows))
            directions = torch.stack([rows[f"layer.{layer}"] for layer in layers])
            source = VectorSource(**json.loads(metadata["source"]))
            metrics = FitMetrics.of_json(json.loads(metadata["metrics"]), where="the file's metrics")
            return cls(layers, directions, source, metrics)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged ({error}). Make the vector anew.") from error


@checked
def mean_centred(vectors: Mapping[str, SteeringVector]) -> dict[str, SteeringVector]:
    """v_k - (1/K) sum_j v_j for each trait k: what is its own, without what all the traits' vectors share.

    Reference: arXiv 2606.00995, appendix F.2.

    Raises:
        WrongInput: no mapping of names to vectors.
        ValueError: fewer than two vectors, or vectors of other models or layers.
    """
    if not isinstance(vectors, Mapping) or not all(isinstance(one, SteeringVector) for one in vectors.values()):
        raise WrongInput(f"vectors must map each trait to its vector, such as {{'owl': vector}}, got {shown(vectors)}.")
    if len(vectors) < 2:
        raise ValueError(f"Got {len(vectors)} vectors. Centring takes at least two, one for each trait.")
    first, *others = vectors.values()
    mean = sum(others, start=first) * (1 / len(vectors))
    traits = ", ".join(vectors)
    return {
        trait: vector._derived((vector - mean).directions, f"{vector.source.method}, minus the mean over {traits}")
        for trait, vector in vectors.items()
    }
