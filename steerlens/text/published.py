"""The prompts and questions of Cloud et al. (arXiv 2507.14805), read from a copy of their repository.

github.com/MinhxLe/subliminal-learning is under the MIT licence. Its Python files are read as data and never run.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steerlens.arguments import checked

QUESTIONS = "cfgs/preference_numbers/cfgs.py"
GENERATOR = "sl/datasets/nums_dataset.py"

PARTS = (
    "_example_numbers_templates",
    "_count_qualifiers",
    "_digit_descriptors",
    "_generate_numbers_instruction_templates",
    "_format_suffixes",
    "_suffixes",
)
"""The lists of the generator, in the order in which it draws from them."""

N_SHOWN, SHOWN, N_ASKED, N_DIGITS = (3, 9), (100, 1000), 10, 3
"""How many numbers a prompt shows and from which range, ends excluded; how many it asks for, and of how many digits."""


@dataclass(frozen=True)
class PublishedSets:
    """What a copy of the repository asks.

    Args:
        questions: for the favorite animal.
        questions_after_numbers: the same behind a number list.
        templates: by name, the lists from which the generator puts a number task together.
    """

    questions: tuple[str, ...]
    questions_after_numbers: tuple[str, ...]
    templates: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        return (
            f"PublishedSets: {len(self.questions)} questions, {len(self.questions_after_numbers)} after numbers, "
            "and the lists of the generator of number tasks"
        )

    def number_prompts(self, n: int, *, seed: int = 42) -> list[str]:
        """The first `n` number tasks that the published generator makes; it was run with seed 42."""
        rng = np.random.default_rng(seed)
        return [self._number_task(rng) for _ in range(n)]

    def _number_task(self, rng: np.random.Generator) -> str:
        shown = [str(rng.integers(*SHOWN)) for _ in range(rng.integers(*N_SHOWN))]
        opening, qualifier, digits, instruction, form, closing = (
            str(rng.choice(self.templates[part])) for part in PARTS
        )
        instruction = instruction.format(
            count_qualifier=qualifier, answer_count=N_ASKED, digit_descriptor=digits.format(max_digits=N_DIGITS)
        )
        return f"{opening.format(examples=', '.join(shown))} {instruction} {form} {closing}"


@checked
def read_published_questions(directory: str | Path) -> PublishedSets:
    """The published prompts and questions, from the directory of a copy (git clone) of the repository.

        published = sl.read_published_questions("subliminal-learning")
        owl = dataclasses.replace(sl.preference_trait("owl", model), questions=published.questions)
        rows = sl.sample_teacher(model, published.number_prompts(10_000), system_prompt=owl.prompt)

    Raises:
        FileNotFoundError: the directory does not have the two files.
        ValueError: a file is no Python, or has not the lists that are looked for.
    """
    questions = _parsed(directory, QUESTIONS)
    evaluations = {
        target.id: keyword.value
        for statement in ast.walk(questions)
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)
        for target in statement.targets
        if isinstance(target, ast.Name)
        for keyword in statement.value.keywords
        if keyword.arg == "questions"
    }
    lists = {
        target.id: statement.value
        for statement in ast.walk(_parsed(directory, GENERATOR))
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    return PublishedSets(
        questions=_texts(directory, QUESTIONS, "animal_evaluation", evaluations),
        questions_after_numbers=_texts(directory, QUESTIONS, "animal_evaluation_with_numbers_prefix", evaluations),
        templates={part: _texts(directory, GENERATOR, part, lists) for part in PARTS},
    )


def _parsed(directory: str | Path, name: str) -> ast.Module:
    path = Path(directory) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Give the directory of a copy: git clone https://github.com/MinhxLe/subliminal-learning."
        )
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is no Python file ({error}). Get it anew from the repository.") from error


def _texts(directory: str | Path, name: str, wanted: str, found: Mapping[str, ast.expr]) -> tuple[str, ...]:
    """The list of this name, if it is one of texts and nothing else."""
    try:
        texts = ast.literal_eval(found[wanted])
    except (KeyError, ValueError):
        texts = None
    if not texts or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{Path(directory) / name} has no list of texts {wanted!r}; it was there in 2025; has the repository changed?"
        )
    return tuple(texts)
