"""Read next-token logits behind questions and the beginnings of their answers: all in the questions' own rows, or a row each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.answers.tree import AnswerTree
from steerlens.cache import NAME, cache_of, gaps_are_safe
from steerlens.forward import forward, in_flight
from steerlens.models.bridge import huggingface_model, parameters_device
from steerlens.shared_prompts import run_prompts
from steerlens.text.batches import TokenBatch, pad_rows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ROWS_AT_ONCE = 64

Logits = Float[Tensor, "question node d_vocab"]


class RowEach:
    """A row for every question and node, from its first token on: right for every model, and slow."""

    def __init__(self, model: "TransformerBridge", prompts: Sequence[list[int]], tree: AnswerTree) -> None:
        self._model, self._prompts, self._tree = model, prompts, tree

    def read(self, nodes: Int[Tensor, "question node"], depth: int) -> Logits:
        """Logits of the next token behind each question and node; zeros where the node is the path that is none."""
        device = parameters_device(self._model)
        asked = (nodes < len(self._tree.paths)).nonzero()
        logits = torch.zeros(0)
        for part in asked.split(ROWS_AT_ONCE):
            rows = [self._prompts[i] + list(self._tree.paths[nodes[i, j]]) for i, j in part.tolist()]
            batch = pad_rows(self._model.tokenizer, rows).to(device)
            found = forward(self._model, batch, logits_to_keep=1).logits[:, -1]
            if not len(logits):
                logits = found.new_zeros(*nodes.shape, found.shape[-1])
            logits[part[:, 0], part[:, 1]] = found
        return logits


class BehindQuestions:
    """One row for every question; all nodes stand behind it, under a mask that shows each the question and its own path."""

    def __init__(self, model: "TransformerBridge", prompts: Sequence[list[int]], tree: AnswerTree) -> None:
        self._model, self._tree = model, tree
        sequence, output = run_prompts(model, prompts)
        self._questions, self._first = sequence.attention_mask, output.logits[:, -1:]
        self._sequence, self.cache = sequence, cache_of(output)
        self._slots = torch.full((len(prompts), len(tree.paths) + 1), -1)

    def has_room(self, tree: AnswerTree) -> bool:
        """Whether the cache takes all nodes of the tree, without a window that would be counted in slots."""
        n_slots = self._sequence.tokens.shape[1] + sum(map(len, tree.inner[1:]))
        return self.cache is not None and gaps_are_safe(self.cache, n_slots)

    def read(self, nodes: Int[Tensor, "question node"], depth: int) -> Logits:
        """Logits of the next token behind each question and node; anything where the node is the path that is none.

        Nodes are of one depth, and those of each depth come before the next one's.
        """
        if depth == 0:
            return self._first
        device, width = self._first.device, self._sequence.tokens.shape[1]
        real = (nodes < len(self._tree.paths)).to(device)
        added = TokenBatch(self._tree.tokens[nodes].to(device), real, real)
        self._sequence = _longer(self._sequence, added)
        self._slots.scatter_(1, nodes, torch.arange(width, width + nodes.shape[1]).expand_as(nodes))
        return self._run(added.tokens, self._mask(nodes, depth).to(device), depth)

    def _mask(self, nodes: Int[Tensor, "question node"], depth: int) -> Tensor:
        """[question node slot], True where a node sees a slot: the question's, and those of its own path."""
        mask = torch.zeros(*nodes.shape, self._sequence.tokens.shape[1], dtype=torch.bool)
        mask[..., : self._questions.shape[1]] = self._questions.cpu()[:, None]
        for _ in range(depth):
            mask.scatter_(2, self._slots.gather(1, nodes)[..., None], True)
            nodes = self._tree.parents[nodes]
        return mask

    def _run(self, tokens: Int[Tensor, "question node"], mask: Tensor, depth: int) -> Logits:
        hf = huggingface_model(self._model)
        hidden = torch.zeros(mask.shape, dtype=hf.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(hf.dtype).min
        )
        positions = (self._questions.sum(-1, keepdim=True) + depth - 1).expand_as(tokens)
        with in_flight(self._sequence):
            output: Any = hf(
                input_ids=tokens,
                attention_mask=hidden[:, None],
                position_ids=positions,
                **{NAME: self.cache},
                use_cache=True,
            )
        self.cache = cache_of(output)
        return output.logits


def _longer(sequence: TokenBatch, added: TokenBatch) -> TokenBatch:
    return TokenBatch(
        torch.cat([sequence.tokens, added.tokens], dim=1),
        torch.cat([sequence.attention_mask, added.attention_mask], dim=1),
        torch.cat([sequence.completion_mask, added.completion_mask], dim=1),
    )


Reader = RowEach | BehindQuestions
