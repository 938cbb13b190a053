"""Which tokens of a chat are steered, to be looked at before anything is run."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from steerlens.arguments import checked
from steerlens.text.batches import RowsOfCall, TokenMask, pad_rows
from steerlens.text.chat import Chat, as_chat, encode_chat
from steerlens.text.positions import Positions
from steerlens.text.vocabulary import token_text
from steerlens.vectors.interventions import acting_positions
from steerlens.vectors.row_masks import at_prompt_ends

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

WIDTH = 100
"""Characters in a line of the terminal's view."""

STEERED = "background:#ffd54f;color:#000;"
PLAIN = "background:#8882;"


@dataclass(frozen=True)
class ShownPositions:
    """The tokens of a rendered chat, and for each of them whether `positions` names it."""

    positions: str
    tokens: tuple[str, ...]
    steered: tuple[bool, ...]

    def __str__(self) -> str:
        """The tokens with one space between them, the steered ones underlined."""
        texts, marks = [""], [""]
        for token, steered in zip(self.tokens, self.steered, strict=True):
            if texts[-1] and len(texts[-1]) + len(token) > WIDTH:
                texts.append("")
                marks.append("")
            texts[-1] += token + " "
            marks[-1] += ("^" if steered else " ") * len(token) + " "
        lines = [line.rstrip() for pair in zip(texts, marks, strict=True) for line in pair]
        return "\n".join([self._caption, *filter(None, lines)])

    def _repr_html_(self) -> str:
        spans = "".join(
            f'<span title="token {index}" style="{STEERED if steered else PLAIN}'
            f'padding:1px 2px;margin:1px;white-space:pre-wrap;display:inline-block">{html.escape(token)}</span>'
            for index, (token, steered) in enumerate(zip(self.tokens, self.steered, strict=True))
        )
        return f'<p>{html.escape(self._caption)}</p><div style="font-family:monospace">{spans}</div>'

    @property
    def _caption(self) -> str:
        return f"{sum(self.steered)} of {len(self.tokens)} tokens are steered at positions={self.positions!r}."


@checked
def show_positions(
    model: "TransformerBridge", chat: str | Chat, positions: Positions | TokenMask | None = None
) -> ShownPositions:
    """Show which tokens of a chat `steer(..., positions=positions)` would change.

        show_positions(model, [user("..."), assistant("...")], "generated")

    Args:
        chat: a question or a chat; a last message by the assistant is the completion, which `steer` counts as
            "generated".
        positions: as in `steer`; a mask has one row, such as `turn_mask(model, [chat], "user")`.

    Returns:
        An object that a notebook renders and `print` shows.

    Raises:
        ValueError: positions are not known, a mask has another shape, or the chat cannot be rendered.
    """
    prompt, completion = encode_chat(model.tokenizer, as_chat(chat))
    of_call = RowsOfCall(torch.arange(1), 1, len(prompt))
    batch = pad_rows(model.tokenizer, [prompt], [completion], rows_of_call=of_call)
    positions = acting_positions([], positions)
    named = isinstance(positions, str)
    steered = (batch.position_mask(positions) if named else at_prompt_ends(positions, batch))[0]
    tokens = (repr(token_text(model.tokenizer, token))[1:-1] for token in prompt + completion)
    return ShownPositions(positions if named else "a mask", tuple(tokens), tuple(steered.tolist()))
