"""How likely a reply begins with given words: the questions run once, the tree of possible answers behind them.

A form of several tokens is as likely as its tokens one after the other, so each inner node of the tree takes one more
position behind each question. A node that hardly any reply passes is left out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from steerlens.answers.readers import BehindQuestions, Logits, Reader, RowEach
from steerlens.answers.tree import AnswerTree
from steerlens.forward import check_length, check_numbers
from steerlens.memory import is_out_of_memory
from steerlens.models.bridge import huggingface_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

QUESTIONS_AT_ONCE = 64
LOGITS_AT_ONCE = 2**26
"""Logits of one forward: memory grows neither with the questions nor with the forms."""

MISSES, SHARE = 1e-5, 1e-2
"""The most that all answers to a question may miss together, in probability and as a share of what they have."""

OWN_MISSES, OWN_SHARE = 1e-6, 1e-3
"""The same for the answer that is asked about alone, so that its odds are exact too."""

PathLogProbs = Float[Tensor, "question path"]
PathProbabilities = Float[Tensor, "question path"]


@torch.no_grad()
def answer_probabilities(
    model: "TransformerBridge", prompts: Sequence[list[int]], tree: AnswerTree, *, own: int
) -> Float[Tensor, "question answer"]:
    """The probability that the reply to each prompt begins with one of each answer's forms.

    Args:
        own: the answer that is asked about. It misses at most `OWN_MISSES`, all answers together `MISSES`.

    Raises:
        ValueError: a prompt with its longest answer does not fit into the context.
        FloatingPointError: the model's logits are NaN or infinite.
    """
    check_length(model, max(map(len, prompts)) + len(tree.inner) - 1)
    parts = (prompts[start : start + QUESTIONS_AT_ONCE] for start in range(0, len(prompts), QUESTIONS_AT_ONCE))
    return torch.cat(
        [path_log_probs(model, _reader(model, part, tree), tree, len(part), own).exp() @ tree.weights for part in parts]
    ).float()


def _reader(model: "TransformerBridge", prompts: Sequence[list[int]], tree: AnswerTree) -> Reader:
    behind = BehindQuestions(model, prompts, tree)
    if len(tree.inner) == 1 or (behind.has_room(tree) and takes_tree_masks(model, prompts)):
        return behind
    return RowEach(model, prompts, tree)


def path_log_probs(
    model: "TransformerBridge", reader: Reader, tree: AnswerTree, n_questions: int, own: int | None = None
) -> PathLogProbs:
    """Log-probability that the reply begins with each path, in float64; -inf behind nodes that are left out.

    Args:
        own: as `answer_probabilities`; None leaves no node out.
    """
    log_p = torch.full((n_questions, len(tree.paths) + 1), -torch.inf, dtype=torch.float64)
    log_p[:, 0] = 0
    for depth, nodes in enumerate(tree.inner):
        wanted = log_p[:, nodes].isfinite()
        if depth == 1 and own is not None:
            wanted &= _worth_reading(log_p[:, :-1].exp(), nodes, tree, own)
        if not wanted.any():
            continue
        read = _packed(nodes, wanted, len(tree.paths))
        at_once = max(1, LOGITS_AT_ONCE // (n_questions * model.cfg.d_vocab))
        for columns in read.split(at_once, dim=1):
            children = tree.children[columns]
            added = _next_log_probs(model, reader.read(columns, depth), tree.tokens[children])
            log_p.scatter_(1, children.flatten(1), (log_p.gather(1, columns)[..., None] + added).flatten(1))
    return log_p[:, :-1]


def _worth_reading(
    probabilities: PathProbabilities, nodes: Int[Tensor, " node"], tree: AnswerTree, own: int
) -> Bool[Tensor, "question node"]:
    """The nodes without the least likely ones, which together hold next to nothing."""
    known = (probabilities @ tree.weights).clamp(min=0)
    mass, of_own = probabilities[:, nodes], tree.leads_to(own)[nodes]
    return torch.where(
        of_own,
        _likeliest(mass * of_own, (OWN_SHARE * known[:, own]).clamp(max=OWN_MISSES)),
        _likeliest(mass * ~of_own, (SHARE * known.sum(-1)).clamp(max=MISSES)),
    )


def _likeliest(
    mass: Float[Tensor, "question node"], misses: Float[Tensor, " question"]
) -> Bool[Tensor, "question node"]:
    """All but the least likely, which together hold no more than `misses`."""
    smallest_first = mass.sort(dim=-1)
    kept = smallest_first.values.cumsum(-1) > misses[:, None]
    return torch.zeros_like(kept).scatter_(1, smallest_first.indices, kept)


def _packed(
    nodes: Int[Tensor, " node"], wanted: Bool[Tensor, "question node"], none: int
) -> Int[Tensor, "question wanted"]:
    """The wanted nodes of each question, moved to the left and filled up with `none`."""
    order = wanted.int().argsort(dim=-1, descending=True, stable=True)[:, : int(wanted.sum(-1).max())]
    return torch.where(wanted.gather(1, order), nodes[order], none)


def _next_log_probs(
    model: "TransformerBridge", logits: Logits, tokens: Int[Tensor, "question node child"]
) -> Float[Tensor, "question node child"]:
    """Log-probabilities of some tokens, without ever holding a copy of more than one question's logits."""
    totals = torch.stack([one.float().logsumexp(-1) for one in logits])
    check_numbers(model, totals[..., None])
    return (logits.gather(-1, tokens.to(logits.device)).double() - totals[..., None]).cpu()


_TAKES_TREE_MASKS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def takes_tree_masks(model: "TransformerBridge", prompts: Sequence[list[int]]) -> bool:
    """Whether the model's attention keeps to the mask of `BehindQuestions`; a few tokens tell, once for each model."""
    hf = huggingface_model(model)
    if hf not in _TAKES_TREE_MASKS:
        try:
            _TAKES_TREE_MASKS[hf] = _readers_agree(model, prompts[0])
        except Exception as error:  # attention that is not made for such a mask fails in ways of its own
            if is_out_of_memory(error):
                raise
            _TAKES_TREE_MASKS[hf] = False
    return _TAKES_TREE_MASKS[hf]


def _readers_agree(model: "TransformerBridge", prompt: list[int]) -> bool:
    """Whether next tokens behind two paths are as in rows of their own, up to a tenth of what tells the paths apart."""
    one, other, *_ = tokens = sorted(set(prompt))[:8]
    tree = AnswerTree.of([[(*path, token) for token in tokens] for path in ((one, other), (other, one))])
    nodes, prompts = tree.inner[-1], [prompt[:2], prompt[:5]]

    def next_tokens(reader: type[BehindQuestions] | type[RowEach]) -> Float[Tensor, "question node token"]:
        log_p = path_log_probs(model, reader(model, prompts, tree), tree, len(prompts))
        return log_p[:, tree.children[nodes]] - log_p[:, nodes, None]

    together, alone = next_tokens(BehindQuestions), next_tokens(RowEach)
    told_apart_by = (alone[:, 0] - alone[:, 1]).abs().mean()
    return bool((together - alone).abs().mean() <= 0.1 * told_apart_by + 1e-5)
