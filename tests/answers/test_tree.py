"""A reply is of the answer whose longest form it begins with, whatever the forms; nothing is counted twice."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlens.answers.tree import AnswerTree

TOKENS, LENGTH = 3, 4
FORMS = st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=LENGTH).map(tuple)


@given(owners=st.dictionaries(FORMS, st.integers(0, 2), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_paths_add_up_to_the_replies_that_begin_with_each_answer(owners, seed):
    """Against all replies of four tokens, each looked at on its own; next tokens depend on what is before."""
    answers = [[form for form, owner in owners.items() if owner == answer] for answer in range(3)]
    tree = AnswerTree.of(answers)
    generator = torch.Generator().manual_seed(seed)
    prefixes = [path for n in range(LENGTH) for path in itertools.product(range(TOKENS), repeat=n)]
    following = {path: torch.rand(TOKENS, generator=generator, dtype=torch.float64).softmax(0) for path in prefixes}

    def probability(path: tuple[int, ...]) -> float:
        return float(torch.stack([following[path[:i]][token] for i, token in enumerate(path)]).prod()) if path else 1.0

    expected = torch.zeros(3, dtype=torch.float64)
    for reply in itertools.product(range(TOKENS), repeat=LENGTH):
        longest = next((owners[reply[:n]] for n in range(LENGTH, 0, -1) if reply[:n] in owners), None)
        if longest is not None:
            expected[longest] += probability(reply)
    found = torch.tensor([probability(path) for path in tree.paths], dtype=torch.float64) @ tree.weights
    torch.testing.assert_close(found, expected)


def test_only_what_goes_on_is_read_and_a_longer_form_of_one_answer_is_not():
    tree = AnswerTree.of([[(1,), (1, 2), (3, 4)], [(5,)]])
    assert tree.paths == ((), (1,), (3,), (5,), (3, 4))
    assert [nodes.tolist() for nodes in tree.inner] == [[0], [2]]
