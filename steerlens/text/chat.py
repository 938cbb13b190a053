"""Chats become tokens here, and nowhere else: template, padding, masks, fingerprint.

Rendered chats are tokenized with `add_special_tokens=False`, because the chat template already writes
the model's special tokens; adding them again would give two BOS on Llama, Gemma and OLMo.
"""

import functools
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.text.positions import POSITIONS, Positions

PLAIN_TEXT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat template for base models: the messages' text, one after the other, with nothing between."""

SYSTEM_IN_USER_TURN = (
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' + messages[1]['content']}]"
    " + messages[2:] %}{% endif %}"
)
"""Put before a chat template that refuses a system role: the system text then begins the first user turn."""

FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July')"
    " | replace('%m', '07') | replace('%Y', '2024') }}{% endmacro %}"
)
"""Put before a template that writes the current date into every prompt, as Llama 3.2's does: to a model, a fingerprint and
an interrupted run, today is the same day tomorrow. It is the day that such templates name by default."""


class Message(TypedDict):
    """One turn of a chat, in the layout that Hugging Face chat templates read."""

    role: str
    content: str


Chat = list[Message]


def system(text: str) -> Message:
    """A system turn."""
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    """A user turn."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": text}


def as_chat(question: str | Chat, system_prompt: str | None = None) -> Chat:
    """The chat that asks `question`, under `system_prompt` if there is one.

    Without a system prompt no system message is passed, so the context is whatever the model's own
    template makes of that (Qwen 2.5, for one, inserts a default).
    """
    chat = [user(question)] if isinstance(question, str) else list(question)
    return chat if system_prompt is None else [system(system_prompt), *chat]


@dataclass(frozen=True)
class TokenBatch:
    """Padded rows of prompt tokens, each followed by completion tokens (possibly none).

    `tokens`, `attention_mask` and `completion_mask` are [batch pos]. Rows keep their order. Prompt
    tokens are those that are attended to and are not completion tokens.
    """

    tokens: Int[Tensor, "batch pos"]
    attention_mask: Bool[Tensor, "batch pos"]
    completion_mask: Bool[Tensor, "batch pos"]

    @property
    def position_ids(self) -> Int[Tensor, "batch pos"]:
        """0 at each row's first real token, whatever the padding side."""
        return (self.attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    @property
    def prompt_mask(self) -> Bool[Tensor, "batch pos"]:
        """True at the tokens of the rendered prompt, the assistant tag included."""
        return self.attention_mask & ~self.completion_mask

    @property
    def last_prompt(self) -> Int[Tensor, " batch"]:
        """Index of each row's last prompt token, from which the first completion token is predicted."""
        slots = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return torch.where(self.prompt_mask, slots, -1).amax(-1)

    @property
    def prediction_mask(self) -> Bool[Tensor, "batch pos"]:
        """True where the next token is a completion token: the positions whose logits matter."""
        return torch.nn.functional.pad(self.completion_mask[:, 1:], (0, 1), value=False)

    @property
    def n_predicting(self) -> int:
        """How many positions, counted from the end, hold everything that predicts a completion token."""
        return self.tokens.shape[1] - int(self.prediction_mask.any(0).nonzero()[0])

    def position_mask(self, positions: Positions) -> Bool[Tensor, "batch pos"]:
        """The tokens that `positions` names."""
        if positions == "all":
            return self.attention_mask
        if positions == "prompt":
            return self.prompt_mask
        if positions == "generated":
            return self.completion_mask
        if positions == "last_prompt":
            return torch.nn.functional.one_hot(self.last_prompt, self.tokens.shape[1]).bool()
        raise ValueError(f"positions={positions!r} is not known. Allowed: {', '.join(POSITIONS)}.")

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on `device`."""
        return TokenBatch(self.tokens.to(device), self.attention_mask.to(device), self.completion_mask.to(device))

    def select(self, rows: Int[Tensor, " row"] | slice) -> "TokenBatch":
        """Some of the rows, or the same in another order."""
        return TokenBatch(self.tokens[rows], self.attention_mask[rows], self.completion_mask[rows])

    def __len__(self) -> int:
        return self.tokens.shape[0]


def render(tokenizer: Any, chat: Chat) -> str:
    """The prompt text of `chat`, ready for the assistant to answer without thinking (Qwen 3), on a fixed day.

    Raises:
        ValueError: the tokenizer has no chat template, the template refuses the chat, or a message is
            empty.
    """
    for message in chat:
        if not message["content"].strip():
            raise ValueError(f"The {message['role']} message is empty. Give it some text, or leave the message out.")
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template, so a chat cannot be rendered. "
            "Set tokenizer.chat_template; for a base model, steerlens.text.chat.PLAIN_TEXT_TEMPLATE joins the texts as "
            "they are (on the command line: --plain-text)."
        )
    return apply_template(tokenizer, chat, add_generation_prompt=True)


def apply_template(tokenizer: Any, chat: Chat, *, add_generation_prompt: bool) -> str:
    """The chat as its template writes it, without thinking and on a fixed day; raises as `render` does."""
    template = tokenizer.get_chat_template()
    try:
        return tokenizer.apply_chat_template(
            chat,
            chat_template=FIXED_DATE + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
    except Exception as error:
        roles = [message["role"] for message in chat]
        raise ValueError(
            f"The chat template of {tokenizer.name_or_path!r} refuses a chat with roles {roles}: {error}. "
            "If it has no system role, let the system text begin the first user turn: tokenizer.chat_template = "
            "steerlens.text.chat.SYSTEM_IN_USER_TURN + tokenizer.chat_template (on the command line: --system-in-user)."
        ) from error


def encode_prompt(tokenizer: Any, chat: Chat) -> list[int]:
    """Token ids of the rendered prompt.

    Raises:
        ValueError: as `render`; or the prompt has words that the tokenizer does not know.
    """
    text = render(tokenizer, chat)
    ids = tokenizer.encode(text, add_special_tokens=False)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        words = {word for message in chat for word in message["content"].split()}
        unknown = sorted(
            word for word in words if tokenizer.unk_token_id in tokenizer.encode(word, add_special_tokens=False)
        )
        if unknown:  # none where the unknown token also is the BOS that the template writes, as in OLMo 2
            raise ValueError(
                f"The tokenizer of {tokenizer.name_or_path!r} does not know {', '.join(map(repr, unknown))}. "
                "Reword the prompt; a small model's vocabulary is listed by tokenizer.get_vocab()."
            )
    return ids


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an assistant's answer, closed by the token that ends a turn."""
    ids, end = tokenizer.encode(text, add_special_tokens=False), end_of_turn(tokenizer)
    return ids if end is None else [*ids, end]


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that closes an assistant's answer: the chat template's own, or else the end-of-sequence token.

    They differ where a model ends its turns with another token than its texts, as Gemma and Phi 3 do.
    """
    return _end_of_turn(tokenizer, tokenizer.chat_template)


@functools.lru_cache(maxsize=8)
def _end_of_turn(tokenizer: Any, template: str | None) -> int | None:
    if template is None:
        return tokenizer.eos_token_id
    answer = "a probe answer"
    rendered = apply_template(tokenizer, [user("a probe question"), assistant(answer)], add_generation_prompt=False)
    closing = tokenizer.encode(rendered.rpartition(answer)[2], add_special_tokens=False)
    control = tokenizer.added_tokens_decoder
    return next((token for token in closing if token in control), tokenizer.eos_token_id)


def encode_chat(tokenizer: Any, chat: Chat) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the completion: a last message by the assistant is the completion.

    Raises:
        ValueError: as `encode_prompt`.
    """
    if chat and chat[-1]["role"] == "assistant":
        return encode_prompt(tokenizer, chat[:-1]), encode_completion(tokenizer, chat[-1]["content"])
    return encode_prompt(tokenizer, chat), []


def pad_rows(
    tokenizer: Any,
    prompts: Sequence[list[int]],
    completions: Sequence[list[int]] | None = None,
    *,
    side: Literal["left", "right"] = "left",
) -> TokenBatch:
    """Pad token rows to one width.

    Args:
        prompts: token ids of each rendered prompt.
        completions: token ids that follow each prompt; none by default.
        side: where the padding goes. Left keeps the next-token positions aligned.
    """
    completions = completions if completions is not None else [[] for _ in prompts]
    rows = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    def padded(values: list[list[int]], fill: int) -> Tensor:
        if side == "left":
            return torch.tensor([[fill] * (width - len(row)) + row for row in values])
        return torch.tensor([row + [fill] * (width - len(row)) for row in values])

    return TokenBatch(
        tokens=padded(rows, pad),
        attention_mask=padded([[1] * len(row) for row in rows], 0).bool(),
        completion_mask=padded(
            [[0] * len(prompt) + [1] * len(answer) for prompt, answer in zip(prompts, completions)], 0
        ).bool(),
    )


def shared_prefix(rows: Sequence[list[int]]) -> int:
    """Number of tokens with which all rows begin."""
    first, last = min(rows), max(rows)
    return next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


class ChatContextWarning(UserWarning):
    """Something made in one chat context is used in another."""


def warn_on_other_context(made_in: str | None, used_in: str, what: str) -> None:
    """Warn where two fingerprints differ; replications saw a trait fall from 48 % to 3 % by that alone."""
    if made_in is not None and made_in != used_in:
        warnings.warn(
            f"{what} was made in the chat context {made_in} and is used in {used_in}: another system prompt or chat "
            "template stands around the question, which can hide or feign an effect. Use the same context, or say that "
            "it differs.",
            ChatContextWarning,
            stacklevel=3,
        )


def chat_fingerprint(tokenizer: Any, system_prompt: str | None = None) -> str:
    """12 hex digits that change when the context around a question changes.

    Hashes the rendering of a fixed probe question, so two contexts are equal exactly when the template
    puts the same text around a question: template, default system prompt and `system_prompt` all count.
    """
    rendered = render(tokenizer, as_chat("a probe question", system_prompt))
    return hashlib.sha256(rendered.encode()).hexdigest()[:12]
