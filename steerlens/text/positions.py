"""Names for the tokens at which a vector is read, fitted or added."""

from typing import Literal

from jaxtyping import Bool
from torch import Tensor

Positions = Literal["all", "prompt", "last_prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "last_prompt", "generated")

TokenMask = Bool[Tensor, "row pos"]
"""Tokens of one's own choice, True where they are meant; a row for each prompt, padding included."""
