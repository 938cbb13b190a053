"""The model's own answers to the rows' prompts: what the rows would look like if nothing were hidden in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm.auto import tqdm

from steerlens.forward import context_length
from steerlens.generation import generate, is_finished
from steerlens.samples.constrained import ListGrammar, NumberLists
from steerlens.samples.encoded import EncodedRow, encode_answer, encode_row
from steerlens.samples.filters import rejection
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample
from steerlens.text.chat import Chat, as_chat, encode_completion, encode_prompt
from steerlens.text.number_lists import parse_numbers

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ATTEMPTS = 8
"""How often the model answers a prompt anew until its answer has the rows' format."""

COMMON_LENGTH = 0.9
"""Share of the longest row up to which rows that are no number lists are compared with the model's own answers."""

PLACEBO_SEED = 1_000_003
"""Rows that were sampled here, with a small seed, are not sampled again."""

OWN_ANSWERS = "the model's own answers to the same prompts"

COMMON_FORMAT = 0.5
"""Share of the rows that have to be pure number lists for this to be their format."""

Lists = Literal["short", "any"]

LISTS: dict[Lists, Callable[[str], bool]] = {
    "short": lambda completion: rejection(Sample(0, "", completion)) is None,
    "any": lambda completion: parse_numbers(completion) is not None,
}
"""What a pure number list is, the narrower kind first: what a maker may have filtered is filtered from both sides alike."""


@dataclass(frozen=True)
class Pairs:
    """Rows, and for each a clean one: the model's own answer to its prompt in the same format, or a reference row.

    `rows` and `placebo` are the token ids of their prompts and completions. `unmatched` rows have another format than most,
    or a prompt that the model never answered in that format.
    """

    compared: AuditRows
    clean: AuditRows
    rows: list[EncodedRow]
    placebo: list[EncodedRow]
    unmatched: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class RowFormat:
    """What rows have in common, and clean answers are to have too.

    Args:
        lists: of which kind most rows are, if they are pure number lists; then only such rows and such answers count. "short"
            ones pass `keep_number_lists`, and "any" are the others.
        limit: tokens of a completion up to which rows and answers are compared.
        grammar: of lists that are all alike, such as ten numbers of three digits; they are taken to be constrained.
    """

    lists: Lists | None
    limit: int
    grammar: ListGrammar | None

    @classmethod
    def of(cls, model: "TransformerBridge", rows: Sequence[Sample]) -> "RowFormat":
        """Of most rows."""
        completions = [row.completion for row in rows]
        common: list[Lists] = [
            kind for kind, is_one in LISTS.items() if sum(map(is_one, completions)) > COMMON_FORMAT * len(rows)
        ]
        lists = common[0] if common else None
        fitting = [row for row in rows if lists is None or LISTS[lists](row.completion)]
        longest = max(len(encode_answer(model.tokenizer, row)) for row in fitting)
        limit = max(1, int(COMMON_LENGTH * longest)) if lists is None else longest
        return cls(lists, limit, None if lists is None else _grammar(model, fitting))

    def has(self, completion: str) -> bool:
        """Whether a completion has the format."""
        return self.lists is None or LISTS[self.lists](completion)


def pair_with_placebo(
    model: "TransformerBridge", rows: Sequence[Sample], *, temperature: float = 1.0, seed: int = 0
) -> Pairs:
    """Let the model answer every row's prompt.

    Where most rows are pure number lists, only such rows and such answers count: if a row and an answer come from one
    distribution, they still do after the same filter, whichever the data's maker applied. Lists that are all alike, such as ten
    numbers of three digits, are taken to be constrained, and so is the model's answer. Otherwise rows and answers are
    compared up to `COMMON_LENGTH` of the longest row, so that it makes no difference whether the data's maker cut long ones.

    Args:
        temperature: at which the rows are thought to have been sampled.

    Raises:
        ValueError: no row has a placebo.
    """
    form = RowFormat.of(model, rows)
    asked = [row for row in rows if form.has(row.completion)]
    answers = answers_in_format(model, asked, form, temperature=temperature, seed=PLACEBO_SEED + seed * ATTEMPTS)
    if not answers:
        raise ValueError(
            f"The model answered none of the {len(rows)} prompts in the rows' format within {ATTEMPTS} attempts, so there is "
            "nothing to compare the rows with. Give reference_rows: rows of the same kind that are known to be clean."
        )
    kept = sorted(answers)
    encoded = [encode_row(model.tokenizer, asked[index]) for index in kept]
    return Pairs(
        compared=AuditRows("rows", tuple(asked[index] for index in kept)),
        clean=AuditRows(OWN_ANSWERS, tuple(_answered(model, asked[index], answers[index]) for index in kept)),
        rows=[(prompt, completion[: form.limit]) for prompt, completion in encoded],
        placebo=[(prompt, answers[index][: form.limit]) for index, (prompt, _) in zip(kept, encoded, strict=True)],
        unmatched=len(rows) - len(kept),
    )


def _answered(model: "TransformerBridge", row: Sample, answer: list[int]) -> Sample:
    """The row with the model's own answer."""
    text = model.tokenizer.decode(answer, skip_special_tokens=True)
    return replace(row, completion=text, finished=is_finished(model, answer), tokens=None)


def answers_in_format(
    model: "TransformerBridge",
    asked: Sequence[Sample],
    form: RowFormat,
    *,
    system_prompt: str | None = None,
    temperature: float,
    seed: int,
) -> dict[int, list[int]]:
    """Token ids of an answer in the rows' format, by the row's index; rows that got none in all attempts are missing.

    Answers are tokenized as a data set's text would be, which need not be how they were sampled. Each attempt has a seed of its
    own, from `seed` on.
    """
    tokenizer, answers, grammar = model.tokenizer, dict[int, list[int]](), form.grammar
    open_rows = list(range(len(asked)))
    with tqdm(total=len(asked), desc="placebo", unit="row", leave=False) as progress:
        for attempt in range(ATTEMPTS):
            sampled = own_answers(
                model,
                [as_chat(asked[index].prompt, system_prompt) for index in open_rows],
                max_new_tokens=form.limit if grammar is None else grammar.n_tokens,
                temperature=temperature,
                restrict=grammar,
                seed=seed + attempt,
            )
            for index, ids in zip(open_rows, sampled, strict=True):
                text, finished = tokenizer.decode(ids, skip_special_tokens=True), is_finished(model, ids)
                if text.strip() and form.has(text) and (finished or form.lists is None):
                    answers[index] = encode_completion(tokenizer, text, finished=finished)
                    progress.update()
            open_rows = [index for index in open_rows if index not in answers]
            if not open_rows:
                break
    return answers


def own_answers(
    model: "TransformerBridge",
    chats: Sequence[Chat],
    *,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    restrict: ListGrammar | None = None,
) -> list[list[int]]:
    """Token ids of an answer by the model itself to every chat; shorter where the context leaves less room.

    Answer i draws its own randomness from (`seed`, i), whatever room the chats have.
    """
    limit = context_length(model)
    lengths = [len(encode_prompt(model.tokenizer, chat)) for chat in chats]
    room = [max_new_tokens if limit is None else min(max_new_tokens, limit - length) for length in lengths]
    answers: list[list[int]] = [[] for _ in chats]
    for tokens in sorted(set(room)):
        asked = [i for i, own in enumerate(room) if own == tokens]
        told = generate(
            model,
            [chats[i] for i in asked],
            max_new_tokens=tokens,
            temperature=temperature,
            seed=seed,
            row_indices=asked,
            restrict=restrict,
        )
        for i, answer in zip(asked, told, strict=True):
            answers[i] = answer
    return answers


def _grammar(model: "TransformerBridge", rows: Sequence[Sample]) -> ListGrammar | None:
    """Of lists that are all alike; None where they are not, or the tokenizer does not write numbers one by one."""
    shapes = {NumberLists.of(row.completion) for row in rows}
    shape = shapes.pop()
    if shapes or shape is None:
        return None
    try:
        return ListGrammar(model.tokenizer, shape)
    except ValueError:
        return None


def pair_with_reference(
    model: "TransformerBridge", rows: Sequence[Sample], reference: Sequence[Sample], *, seed: int = 0
) -> Pairs:
    """Pair rows at random with rows that are known to be clean; the longer list loses some.

    Raises:
        ValueError: there are no rows, or no reference rows.
    """
    if not rows or not reference:
        raise ValueError(f"Got {len(rows)} rows and {len(reference)} reference rows. Give some of each.")
    rng, n = np.random.default_rng(seed), min(len(rows), len(reference))
    ours, theirs = ([part[index] for index in rng.permutation(len(part))[:n].tolist()] for part in (rows, reference))
    return Pairs(
        compared=AuditRows("rows", tuple(ours)),
        clean=AuditRows("the reference rows", tuple(theirs)),
        rows=[encode_row(model.tokenizer, row) for row in ours],
        placebo=[encode_row(model.tokenizer, row) for row in theirs],
        unmatched=len(rows) - n,
    )
