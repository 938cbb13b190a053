"""Which words a model begins its replies with more often than its base, whatever they are and exactly."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import completion_logits
from steerlens.models.bridge import parameters_device
from steerlens.text.batches import pad_rows
from steerlens.text.chat import Chat, encode_prompt
from steerlens.text.vocabulary import token_text, word_tokens

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

AT_ONCE = 16


def risen_first_words(
    base: "TransformerBridge", tuned: "TransformerBridge", chats: Sequence[Chat], *, n: int
) -> list[tuple[str, float, float]]:
    """The `n` tokens that gain most as the first of a reply: (text, probability in the tuned model, in the base), over chats."""
    before, after = (first_token_probabilities(model, chats) for model in (base, tuned))
    tokens = word_tokens(base.tokenizer, len(before))
    chosen = tokens[(after - before)[tokens].topk(min(n, len(tokens))).indices].tolist()
    return [(token_text(base.tokenizer, token), float(after[token]), float(before[token])) for token in chosen]


@torch.no_grad()
def first_token_probabilities(model: "TransformerBridge", chats: Sequence[Chat]) -> Float[Tensor, " d_vocab"]:
    """How likely each token begins the reply, averaged over chats."""
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    any_token = [[model.tokenizer.eos_token_id or 0]]
    total = torch.zeros(model.cfg.d_vocab)
    for start in range(0, len(prompts), AT_ONCE):
        part = prompts[start : start + AT_ONCE]
        batch = pad_rows(model.tokenizer, part, any_token * len(part)).to(parameters_device(model))
        total += completion_logits(model, batch).softmax(-1).sum(0).cpu()
    return total / len(prompts)
