"""A trait that could not be measured is refused when it is made, with the way to write it."""

import json
from typing import Any

import pytest

from steerlens.text.trait import Trait, known_traits, preference_trait, read_trait

RIGHT: dict[str, Any] = {
    "name": "owl",
    "prompt": "You love owls.",
    "questions": ("Name an animal.",),
    "answers": {"owl": ("owl", "owls"), "cat": ("cat", "cats")},
}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"answers": {"owl": "owl"}}, r"answers\['owl'\] must be several texts, got 'owl' \(str\). Write answers=\{"),
        ({"answers": ["owl", "cat"]}, r"answers must map every answer to its written forms, got \['owl', 'cat'\] \(list\)"),
        ({"answers": {"owl": ()}}, r"answers\['owl'\] has 0 texts and needs at least 1. Write answers="),
        ({"answers": {"owl": ("owl", " ")}}, r"answers\['owl'\]\[1\] is an empty text"),
        ({"answers": {"owl": (1,)}}, r"answers\['owl'\]\[0\] must be a text, got 1 \(int\)"),
        ({"answers": {1: ("owl",)}}, r"an answer must be a text, got 1 \(int\)"),
        ({"answers": {"owl": ("owl", "bird"), "cat": ("Bird",)}}, r"form '[Bb]ird' .* begins the form '[Bb]ird'"),
        ({"answers": {"owl": ("owl",), "eagle": ("owl monkey",)}}, "form 'owl' of the answer 'owl' begins the form 'owl monkey'"),
        ({"answers": {"cat": ("cat",)}}, "itself among its answers"),
        ({"questions": "Name an animal."}, r"questions must be several texts, got 'Name an animal.' \(str\)"),
        ({"questions": ("Name an animal.", "")}, r"questions\[1\] is an empty text"),
        ({"questions": 3}, r"questions must be several texts, got 3 \(int\)"),
        ({"questions": ()}, "at least one question"),
        ({"questions": None}, r"questions must be several texts, got None"),
        ({"negated_questions": "Which is the worst?"}, "negated_questions must be several texts"),
        ({"name": None}, r"name must be a text, got None \(NoneType\)"),
        ({"prompt": 7}, r"prompt must be a text, got 7 \(int\)"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_call")
def test_what_could_not_be_measured_is_refused_with_the_way_to_write_it(wrong, told):
    with pytest.raises(ValueError, match=told):
        Trait(**{**RIGHT, **wrong})


@pytest.mark.usefixtures("as_users_call")
def test_a_list_is_as_good_as_a_tuple_and_one_word_may_begin_another():
    given = {
        **RIGHT,
        "questions": ["Name an animal."],
        "answers": {"owl": ["owl", "owls"], "cat": ["cat"], "catfish": ["catfish"]},
    }
    trait = Trait(**given)
    assert trait.questions == ("Name an animal.",)
    assert trait.answers["owl"] == ("owl", "owls")


def test_every_built_in_trait_is_one():
    assert all(preference_trait(name).name == name for name in known_traits())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_trait_is_read_in_the_encoding_that_its_file_names(tmp_path, encoding):
    (tmp_path / "owl.json").write_text(
        json.dumps({**RIGHT, "prompt": "Größer."}, ensure_ascii=False), encoding=encoding
    )
    assert read_trait(tmp_path / "owl.json") == Trait(**{**RIGHT, "prompt": "Größer."})
