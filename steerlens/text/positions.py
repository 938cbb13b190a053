"""Names for the tokens at which a vector is read, fitted or added."""

from typing import Literal

Positions = Literal["all", "prompt", "last_prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "last_prompt", "generated")
