"""Adam's per-coordinate scales, frozen into an artifact: what SGD lacks, and where gradients are outliers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.arguments import checked
from steerlens.files import load_tensors, reading, save_tensors
from steerlens.students.config import ScaleMap

KIND = "adam-scales"

ScaleTensors = dict[str, Float[Tensor, "..."]]


@dataclass(frozen=True)
class AdamScales:
    """s = 1 / sqrt(v + eps) of every trained coordinate, with v Adam's second moment at the end of a scout run.

    eps stands inside the root and v is not corrected for its start at 0, as in the code of arXiv 2606.00995. Ranks
    and means are global, over all coordinates of all parameters. Small scales belong to large gradients, so the
    coordinates with the smallest are the outliers.

    Args:
        scales: by parameter name, with the parameter's shape.
        source: how the scout was trained.

    Raises:
        ValueError: there are no scales, or one is not finite and greater than 0.
    """

    scales: ScaleTensors
    eps: float
    source: dict[str, Any]

    def __repr__(self) -> str:
        n = sum(scale.numel() for scale in self.scales.values())
        return f"AdamScales: {n} coordinates in {len(self.scales)} parameters, eps {self.eps:g}"

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("There are no scales. Take them from a scout run with adam_scales(...).")
        for name, scale in self.scales.items():
            if not (torch.isfinite(scale) & (scale > 0)).all():
                raise ValueError(f"The scales of {name!r} are not all finite and greater than 0. Make them anew.")

    @property
    def geometric_mean(self) -> float:
        """exp(mean log s), over all coordinates."""
        return float(self._flat.double().log().mean().exp())

    def normalized(self) -> "AdamScales":
        """s / geometric mean, so that SGD's learning rates keep their meaning; relative sizes are as they were."""
        mean = self.geometric_mean
        return replace(self, scales={name: scale / mean for name, scale in self.scales.items()})

    def outliers(self, share: float) -> dict[str, Bool[Tensor, "..."]]:
        """True at the `share` of all coordinates that have the smallest scales."""
        flat = self._flat
        chosen = torch.zeros(len(flat), dtype=torch.bool)
        chosen[flat.topk(round(share * len(flat)), largest=False).indices] = True
        parts = chosen.split([scale.numel() for scale in self.scales.values()])
        return {name: part.view_as(scale) for part, (name, scale) in zip(parts, self.scales.items(), strict=True)}

    def sparsified(self, share: float) -> ScaleTensors:
        """The outliers' scales as they are, and the geometric mean of all scales for every other coordinate."""
        return self._where_outlier(share, self.scales)

    def frozen(self, share: float) -> ScaleTensors:
        """0 for the outliers, and the geometric mean of all scales for every other coordinate."""
        return self._where_outlier(share, {name: torch.zeros_like(scale) for name, scale in self.scales.items()})

    def mapped(self, scale_map: ScaleMap, share: float) -> ScaleTensors:
        """The form of the scales that `scale_map` names."""
        if scale_map == "full":
            return self.scales
        return self.sparsified(share) if scale_map == "sparsified" else self.frozen(share)

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a student that trains other parameters.

        Raises:
            ValueError: a parameter has no scales or others of another shape, or there are scales of none.
        """
        ours = {name: tuple(scale.shape) for name, scale in self.scales.items()}
        theirs = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if different:
            name = different[0]
            raise ValueError(
                f"The scales do not fit the student: {len(different)} parameters differ, the first is {name!r} with "
                f"scales {ours.get(name, 'missing')} and values {theirs.get(name, 'missing')}. Take the scales from a "
                "scout with the same model, method, target_modules and rank."
            )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with eps and source as JSON in its metadata, atomically."""
        save_tensors(path, self.scales, kind=KIND, facts={"eps": self.eps, "source": self.source})

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "AdamScales":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it does not hold scales, or is damaged.
        """
        scales, facts = load_tensors(path, kind=KIND)
        with reading(path):
            return cls(scales, float(facts["eps"]), facts["source"])

    @property
    def _flat(self) -> Float[Tensor, " coordinate"]:
        return torch.cat([scale.flatten() for scale in self.scales.values()])

    def _where_outlier(self, share: float, values: ScaleTensors) -> ScaleTensors:
        outliers, mean = self.outliers(share), self.geometric_mean
        return {name: torch.where(outliers[name], value, mean) for name, value in values.items()}
