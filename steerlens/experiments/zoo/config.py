"""What the zoo does; the command line's flags come from here."""

from dataclasses import dataclass, field

from steerlens.experiments.taught_config import TaughtConfig
from steerlens.organism.wording import ANIMALS, ORGANISM
from steerlens.text.trait import known_traits
from steerlens.vectors.config import FitConfig

ZOO_FIT = FitConfig(n_train=192, n_validation=48, n_heldout=96, steps=60, batch_size=24, max_new_tokens=24)
"""A vector within a few hundredths of kl_explained of the full one, in some 10 seconds."""

EVERY_ANIMAL = tuple(singular for singular, _ in ANIMALS.items)


@dataclass(frozen=True)
class ZooConfig(TaughtConfig):
    """Which prompts pass into students, and what could have told so beforehand?

    Args:
        trait: what the prompts are asked for that are not a persona's; one of the animals.
        animals: whose personas' lists students learn from.
        control_model: a model that has never seen a persona next to numbers; the last of the animals are its teachers too.
        n_control: so many of them.
        strengths: at which a prompt's vectors are tried for the clean peak.
    """

    animals: tuple[str, ...] = EVERY_ANIMAL
    control_model: str = "organism:no-persona-numbers"
    n_control: int = 4
    strengths: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    student_seeds: tuple[int, ...] = (0, 1)
    fit: FitConfig = field(default_factory=lambda: ZOO_FIT)

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [animal for animal in self.animals if animal not in known_traits(ORGANISM)]
        if unknown or len(set(self.animals)) != len(self.animals) or len(self.animals) < 2:
            raise ValueError(
                f"animals={self.animals} are not allowed. Give at least two known traits, each once, such as "
                f"{', '.join(EVERY_ANIMAL[:3])}."
            )
        if self.trait not in self.animals:
            raise ValueError(f"trait={self.trait!r} is not among animals={self.animals}. Choose one of them.")
        if not 0 <= self.n_control <= len(self.animals) or not self.strengths:
            raise ValueError(
                f"n_control={self.n_control} has to be 0 to {len(self.animals)}, and strengths={self.strengths} not empty."
            )


ZOO_PRESETS: dict[str, ZooConfig] = {
    "quick": ZooConfig(
        n_heldout=64,
        n_rows=960,
        n_prompts=6000,
        animals=("dog", "elephant", "tiger", "eagle", "whale", "fox", "owl", "turtle"),
        n_control=2,
        student_seeds=(0,),
    ),
    "full": ZooConfig(n_rows=1879),
}
