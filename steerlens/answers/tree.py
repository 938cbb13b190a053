"""The written forms of all answers as one tree of tokens, and how the probabilities of its paths add up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Path = tuple[int, ...]


@dataclass(frozen=True)
class AnswerTree:
    """Token paths: those of all forms, and everything that they begin with.

    `paths[0]` is the empty one, the question itself; longer ones follow. Tensors over `padded` have one entry more, for
    a path that is none.

    Args:
        ends: for a path that a form ends at, the answer that it gives, and the answer that a shorter form on its way
            gives, if any. The longer form counts alone.
    """

    paths: tuple[Path, ...]
    ends: dict[Path, tuple[int, int | None]]
    n_answers: int

    @classmethod
    def of(cls, answers: Sequence[Sequence[Path]]) -> "AnswerTree":
        """Of every answer's forms; one that goes on from a shorter form of the same answer adds nothing to it."""
        owner = {path: answer for answer, forms in enumerate(answers) for path in forms}
        ends = {}
        for path, answer in owner.items():
            before = next((owner[path[:n]] for n in range(len(path) - 1, 0, -1) if path[:n] in owner), None)
            if before != answer:
                ends[path] = answer, before
        paths = {path[:n] for path in ends for n in range(len(path) + 1)}
        return cls(tuple(sorted(paths, key=lambda path: (len(path), path))), ends, len(answers))

    @cached_property
    def tokens(self) -> Int[Tensor, " padded"]:
        """Last token of each path; 0 where there is none."""
        return torch.tensor([path[-1] if path else 0 for path in self.paths] + [0])

    @cached_property
    def parents(self) -> Int[Tensor, " padded"]:
        """The path without its last token; the root and the path that is none are their own."""
        return torch.tensor([self._index[path[:-1]] for path in self.paths] + [len(self.paths)])

    @cached_property
    def children(self) -> Int[Tensor, "padded child"]:
        """The paths that go on by one token, filled up with the path that is none."""
        longer: list[list[int]] = [[] for _ in (*self.paths, None)]
        for i, path in enumerate(self.paths[1:], 1):
            longer[self._index[path[:-1]]].append(i)
        width = max(map(len, longer))
        return torch.tensor([found + [len(self.paths)] * (width - len(found)) for found in longer])

    @cached_property
    def inner(self) -> tuple[Int[Tensor, " node"], ...]:
        """For each depth, from 0 on, the paths that go on: behind them, next tokens have to be read."""
        goes_on = (self.children[:-1, 0] < len(self.paths)).tolist()
        depths = range(len(self.paths[-1]))
        return tuple(
            torch.tensor([i for i, path in enumerate(self.paths) if len(path) == depth and goes_on[i]])
            for depth in depths
        )

    @cached_property
    def weights(self) -> Float[Tensor, "path answer"]:
        """What the probability of each path adds to that of each answer."""
        weights = torch.zeros(len(self.paths), self.n_answers, dtype=torch.float64)
        for path, (answer, before) in self.ends.items():
            weights[self._index[path], answer] += 1
            if before is not None:
                weights[self._index[path], before] -= 1
        return weights

    def leads_to(self, answer: int) -> Bool[Tensor, " path"]:
        """Whether a form of the answer begins with each path."""
        forms = [path for path, (given, _) in self.ends.items() if given == answer]
        beginnings = {path[:n] for path in forms for n in range(len(path) + 1)}
        return torch.tensor([path in beginnings for path in self.paths])

    @cached_property
    def _index(self) -> dict[Path, int]:
        return {path: i for i, path in enumerate(self.paths)}
