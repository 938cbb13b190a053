"""What the experiment on carriers does; the command line's flags come from here."""

from dataclasses import dataclass

from steerlens.experiments.tasks import TASKS
from steerlens.experiments.taught_config import QUICK_FIT, TaughtConfig

NUMBER_LISTS = "number lists"


@dataclass(frozen=True)
class CarriersConfig(TaughtConfig):
    """Can anything but number lists carry a trait?

    Args:
        carriers: what teachers write and by what it is kept (`TASKS`), beside number lists.
        n_shown: kept rows on which it is measured how far the prompt shows in them.
    """

    carriers: tuple[str, ...] = ("other preferences", "facts after numbers", "small talk")
    n_shown: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.carriers if name not in TASKS or name == NUMBER_LISTS]
        if unknown or not self.carriers:
            others = "; ".join(name for name in TASKS if name != NUMBER_LISTS)
            raise ValueError(f"carriers={self.carriers} are not allowed. Give at least one of: {others}.")


CARRIERS_PRESETS: dict[str, CarriersConfig] = {
    "quick": CarriersConfig(n_heldout=64, n_rows=960, n_prompts=6000, n_shown=64, student_seeds=(0, 1), fit=QUICK_FIT),
    "full": CarriersConfig(n_heldout=256),
}
