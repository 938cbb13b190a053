"""Where everything of one run stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from steerlens.experiments.config import DataConfig

Config = TypeVar("Config", bound=DataConfig, covariant=True)


@dataclass(frozen=True)
class Run(Generic[Config]):
    """A run's directory, and what each stage leaves there."""

    config: Config
    directory: Path

    def vector_path(self, model: str) -> Path:
        """v_teacher of `model`: the mean difference, every layer."""
        return self.directory / "vectors" / f"teacher-{slug(model)}.safetensors"

    def named_vector_path(self, name: str) -> Path:
        """A vector of this run by its name."""
        return self.directory / "vectors" / f"{file_name(name)}.safetensors"

    def samples_path(self, model: str, data: str) -> Path:
        """Filtered rows; those of the first model have the short names."""
        suffix = "" if model == self.config.model else f"-{slug(model)}"
        return self.directory / "samples" / f"{data}{suffix}.jsonl"

    def heldout_path(self, model: str) -> Path:
        """Filtered teacher rows that no student is trained on."""
        return self.samples_path(model, "heldout")

    def trace_path(self, student: str) -> Path:
        """The gradients of a student's training."""
        return self.directory / "traces" / f"{student}.safetensors"

    def steps_path(self, student: str) -> Path:
        """Where the optimizer's steps of a student's training went."""
        return self.directory / "steps" / f"{student}.safetensors"

    @property
    def scales_path(self) -> Path:
        """Adam's scales, from one scout."""
        return self.directory / "scales.safetensors"

    @property
    def other_vectors(self) -> list[Path]:
        """v_teacher of every other trait on the first model."""
        return sorted((self.directory / "vectors" / "others").glob("*.safetensors"))


def slug(model: str) -> str:
    """A model's name as part of a file name."""
    return model.replace("organism:", "").replace("/", "-")


def file_name(name: str) -> str:
    """A name in words as a file name."""
    return "".join(character for character in name if character not in ",:'").replace(" ", "-")
