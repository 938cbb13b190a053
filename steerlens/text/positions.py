"""Which tokens of a row are meant."""

from typing import Literal

Positions = Literal["all", "prompt", "last_prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "last_prompt", "generated")
