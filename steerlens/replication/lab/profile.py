"""A profile: everything about one model that an experiment needs to know, in one TOML file."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import steerlens as sl
from steerlens.replication.names import PROFILES, known_profiles

PRESETS = ("smoke", "quick", "full")
Preset = Literal["smoke", "quick", "full"]


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Args:
        n_prompts: number tasks that a teacher is asked, where all rows are used that the filter keeps.
        n_rows: kept rows of every teacher, where several teachers are compared.
        n_heldout: kept rows on which losses are measured, and which no student learns from.
        seeds: of the students of every teacher.
        compared_seeds: of those by whom AdamW and SGD are compared, where more are needed; None takes `seeds`.
        n_other_traits: how many of the profile's other traits are compared with.
        n_rates: how many of the profile's learning rates are tried of each optimizer, from the middle outwards, and how many
            ranks, but two at least.
        n_tasks, n_mean: number tasks at which students' shifts, and prompts' mean differences, are averaged.
        n_random: random vectors in each null distribution.
        n_questions: of the trait's questions, so many are asked; None is all.
        fit: how prompts' vectors are fitted.
    """

    n_prompts: int
    n_rows: int
    n_heldout: int
    seeds: tuple[int, ...]
    compared_seeds: tuple[int, ...] | None = None
    n_other_traits: int = 23
    n_rates: int = 5
    n_tasks: int = 96
    n_mean: int = 256
    n_random: int = 5
    n_questions: int | None = None
    fit: sl.FitConfig = dataclasses.field(default_factory=sl.FitConfig)

    def __post_init__(self) -> None:
        for name in ("n_prompts", "n_rows", "n_heldout", "n_tasks", "n_random"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed. It must be 1 or greater.")
        if not self.seeds:
            raise ValueError("seeds is empty. Give at least one.")


@dataclass(frozen=True)
class Profile:
    """One model, and the student and sizes that suit it.

    Args:
        weights: what `load_model` takes.
        dtype: of the weights, such as "bfloat16"; None is the checkpoint's own.
        other_initialisation: weights of the same recipe from another start; None leaves out what needs them.
        deaf: weights that never saw a persona next to numbers; None leaves out what needs them.
        trait: what the teacher is told to love.
        other_traits: of the same kind.
        begun: begin the replies, for models that answer in whole sentences.
        constrained: let teachers write digits and separators only, for models that cannot write lists on request.
        fit_layers: the layers that are compared where vectors are fitted or measured layer by layer; None is all. A fit
            that looks for the best layer by itself tries them all.
        student: the main student.
        rates: learning rates of each family of optimizers, rising.
        ranks: of LoRA, where ranks are compared.
        teacher: how a trait is trained into a teacher's weights, where that is done.
    """

    name: str
    weights: str
    trait: str
    other_traits: tuple[str, ...]
    student: sl.TrainConfig
    rates: dict[str, tuple[float, ...]]
    smoke: Sizes
    quick: Sizes
    full: Sizes
    dtype: str | None = None
    other_initialisation: str | None = None
    deaf: str | None = None
    begun: bool = False
    constrained: bool = False
    fit_layers: tuple[int, ...] | None = None
    ranks: tuple[int, ...] = (1, 4, 16)
    teacher: sl.TrainConfig = dataclasses.field(
        default_factory=lambda: sl.TrainConfig(rank=16, learning_rate=1e-3, epochs=1, batch_size=16)
    )

    def sizes(self, preset: Preset) -> Sizes:
        """The sizes of a preset."""
        return getattr(self, preset)


def read_profile(name: str | Path) -> Profile:
    """A profile of `models/` by its name, or one of your own by the path of its TOML file.

    A file may begin with `extends = "organism"`; it then says only what differs.

    Raises:
        FileNotFoundError: there is no such profile.
        ValueError: the file is no TOML, or a key is missing, unknown or of the wrong type.
    """
    path = Path(name) if str(name).endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(known_profiles())
        raise FileNotFoundError(
            f"There is no profile {str(name)!r}. There are: {known}. For another model, copy one of these files from "
            f"{PROFILES}, change it, and give its path."
        )
    profile = sl.from_json(Profile, {"name": path.stem, **_read(path)}, where=str(path))
    for optimizer, rates in profile.rates.items():
        if list(rates) != sorted(set(rates)) or not rates:
            raise ValueError(f"{path}: rates.{optimizer}={list(rates)} must be one or more rates, rising.")
    return profile


def _read(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file ({error}).") from error
    extends = found.pop("extends", None)
    return found if extends is None else _merged(_read(PROFILES / f"{extends}.toml"), found)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, table by table; `above` wins."""
    tables = {key: _merged(below[key], value) for key, value in above.items() if isinstance(below.get(key), dict)}
    return {**below, **above, **tables}
