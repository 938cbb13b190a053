"""Which tokens of a rendered chat are the text of some of its turns."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from steerlens.checks import WrongInput, a_model, shown
from steerlens.text.batches import TokenMask
from steerlens.text.chat import Chat, Message, as_chat, encode_prompt
from steerlens.text.rendering import render
from steerlens.text.templates import text_of

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PLACE = "the text stands here"
"""Takes a turn's place while the template is asked where it writes it."""


def turn_mask(model: "TransformerBridge", chats: Sequence[str | Chat], turns: str | Sequence[int]) -> TokenMask:
    """The tokens of some turns, as `steer(..., positions=mask)` takes them.

        with steer(model, vector, positions=turn_mask(model, chats, "user")):
            generate(model, chats, max_new_tokens=50)

    A turn's tokens are those of its text, without what the template writes around it. A token that is partly the text's is
    one of them. Chats are rendered as `generate` renders them, ready for the assistant to answer.

    Args:
        turns: a role ("system", "user", "assistant", ...), or the places of turns in every chat: 0 is the first, -1 the last.

    Returns:
        [chat, token], True at the turns' tokens, padded on the left to the longest chat.

    Raises:
        WrongInput: `chats` or `turns` is of the wrong kind.
        ValueError: a chat cannot be rendered or has no such turn, no chat has a turn of that role, or the template changes a
            turn's text.
    """
    if isinstance(chats, str) or not isinstance(chats, Sequence) or (chats and isinstance(chats[0], dict)):
        raise WrongInput(f"chats must be several chats in a list, got {shown(chats)}. Put a single one into a list.")
    tokenizer = a_model(model, "model").tokenizer
    rows = [_row(tokenizer, as_chat(chat), turns) for chat in chats]
    if not any(map(any, rows)):
        roles = sorted({message["role"] for chat in chats for message in as_chat(chat)})
        raise ValueError(f"No chat has a turn of {turns!r}. Roles in these {len(rows)} chats: {', '.join(roles)}.")
    width = max(map(len, rows))
    return torch.tensor([[False] * (width - len(row)) + row for row in rows])


def _row(tokenizer: Any, chat: Chat, turns: str | Sequence[int]) -> list[bool]:
    ids, text = encode_prompt(tokenizer, chat), render(tokenizer, chat)
    spans = [_span(tokenizer, chat, index, text) for index in _indices(chat, turns)]
    offsets = _offsets(tokenizer, text)
    named = [any(start < end_ and begin < end for start, end in spans) for begin, end_ in offsets]
    return [False] * (len(ids) - len(named)) + named  # an opening that the template leaves to the tokenizer


def _indices(chat: Chat, turns: Any) -> list[int]:
    if isinstance(turns, str):
        return [index for index, message in enumerate(chat) if message["role"] == turns and text_of(message).strip()]
    if not isinstance(turns, Iterable) or not all(isinstance(index, int) for index in turns):
        raise WrongInput(f"turns must be a role such as 'user', or places such as [0, -1], got {shown(turns)}.")
    if missing := [index for index in turns if not -len(chat) <= index < len(chat)]:
        raise ValueError(
            f"There is no turn {missing[0]} in a chat of {len(chat)} turns. Places are 0 to {len(chat) - 1}."
        )
    return [index % len(chat) for index in turns]


def _span(tokenizer: Any, chat: Chat, index: int, text: str) -> tuple[int, int]:
    """Where a turn's text begins and ends in the rendered chat."""
    instead: Message = {**chat[index], "content": PLACE}
    start = render(tokenizer, [*chat[:index], instead, *chat[index + 1 :]]).find(PLACE)
    for content in (text_of(chat[index]), text_of(chat[index]).strip()):
        if start >= 0 and text.startswith(content, start):
            return start, start + len(content)
    raise ValueError(
        f"The chat template of {tokenizer.name_or_path!r} does not write turn {index} ({chat[index]['role']}) as it is, so its "
        "tokens cannot be found. Give steer a mask of your own, bool [prompt, token]."
    )


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} does not say which characters a token stands for. Load it with "
            "use_fast=True, or give steer a mask of your own, bool [prompt, token]."
        )
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
