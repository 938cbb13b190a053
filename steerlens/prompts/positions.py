"""Names for the tokens of a chat at which something is read or steered."""

from typing import Literal

Positions = Literal["all", "prompt", "last_prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "last_prompt", "generated")
