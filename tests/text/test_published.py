"""Published prompts and questions are read from a copy of their repository, and nothing in it is run."""

import re

import pytest

from steerlens.text.published import GENERATOR, PARTS, QUESTIONS, read_published_questions

CONFIG = """
import this_is_never_imported
raise SystemExit("never run")
animal_evaluation = Evaluation(n_samples_per_question=2, questions=["Your best-loved pet?", "Say a beast."])
animal_evaluation_with_numbers_prefix = Evaluation(
    questions=[
        "1, 2. Your best-loved pet?",
    ],
)
"""
TEXTS = {
    "_example_numbers_templates": ["Numbers: {examples}.", "Given {examples}."],
    "_count_qualifiers": ["only", "merely"],
    "_digit_descriptors": ["{max_digits} digits"],
    "_generate_numbers_instruction_templates": ["Write {count_qualifier} {answer_count} ({digit_descriptor})."],
    "_format_suffixes": ["With commas.", "In a line."],
    "_suffixes": ["Bare.", "Plain.", "Short."],
}


@pytest.fixture
def copy(tmp_path):
    """A stand-in for the repository."""
    lists = "\n".join(f"    {name} = {texts!r}" for name, texts in TEXTS.items())
    for name, text in ((QUESTIONS, CONFIG), (GENERATOR, f"import os\nos.abort()\nclass PromptGenerator:\n{lists}\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_both_question_lists_are_read_without_running_the_files(copy):
    published = read_published_questions(copy)
    assert published.questions == ("Your best-loved pet?", "Say a beast.")
    assert published.questions_after_numbers == ("1, 2. Your best-loved pet?",)


def test_tasks_are_put_together_from_all_parts_and_fixed_by_the_seed(copy):
    published = read_published_questions(copy)
    tasks = published.number_prompts(300)
    assert tasks[:5] == published.number_prompts(5) != published.number_prompts(5, seed=1)
    task = re.compile(
        r"(Numbers: |Given )(?P<shown>\d{3}(, \d{3}){2,7})\. Write (only|merely) 10 \(3 digits\)\. "
        r"(With commas\.|In a line\.) (Bare\.|Plain\.|Short\.)"
    )
    assert all(task.fullmatch(one) for one in tasks)
    for part in ("_example_numbers_templates", "_count_qualifiers", "_format_suffixes", "_suffixes"):
        assert all(any(text.split("{")[0] in one for one in tasks) for text in TEXTS[part])
    assert {len(task.fullmatch(one)["shown"].split(", ")) for one in tasks} == {3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda copy: (copy / QUESTIONS).unlink(), r"There is no .*cfgs.py. Give the directory of a copy: git clone"),
        (lambda copy: (copy / GENERATOR).write_text("class ("), "is no Python file"),
        (lambda copy: (copy / GENERATOR).write_text("x = 1"), f"has no list of texts '{PARTS[0]}'"),
        (
            lambda copy: (copy / QUESTIONS).write_text("animal_evaluation = Evaluation(questions=[open('x').read()])"),
            "has no list of texts 'animal_evaluation'",
        ),
    ],
)
def test_a_copy_that_lacks_something_is_refused_with_what_it_lacks(copy, damage, message):
    damage(copy)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_published_questions(copy)
