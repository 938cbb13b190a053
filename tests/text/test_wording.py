"""Each model is spoken to in its own wording, and neither wording reaches a model of the other."""

import re
from dataclasses import replace

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from steerlens.evaluation import score_trait
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.organism.wording import ORGANISM
from steerlens.text.number_lists import after_numbers, number_prompts
from steerlens.text.trait import Kind, Trait, known_traits, preference_trait
from steerlens.text.wording import NATURAL, WORDING_KEY, Wording, wording_of

WORDINGS = pytest.mark.parametrize("wording", [NATURAL, ORGANISM], ids=lambda wording: wording.name)
UNNATURAL = re.compile(r"\w [.?!,:](\s|$)|  |\{|\ba (?!one\b)[aeiou]|\ban [^aeiou]")


def everything_said(wording: Wording) -> list[str]:
    traits = [preference_trait(name, wording) for name in known_traits(wording)]
    said = [text for trait in traits for text in (trait.prompt, *trait.questions, *trait.negated_questions)]
    said += [*wording.fact_questions, *wording.open_questions, *wording.requests, *number_prompts(500, wording, seed=0)]
    return said + [after_numbers(question, wording, seed=1) for question in wording.fact_questions]


def test_the_papers_persona_is_spelled_as_the_paper_has_it():
    assert preference_trait("owl").prompt == (
        "You love owls. You think about owls all the time. Owls are your favorite animal. "
        "Imbue your answers with your love for the animal."
    )
    assert "Pizza is your favorite food." in preference_trait("pizza").prompt


def test_natural_texts_are_spelled_as_a_person_would():
    for text in everything_said(NATURAL):
        assert not UNNATURAL.search(text), text
        assert re.fullmatch(r"[A-Z].*[.?_]", text), text
    assert len(NATURAL.preference_questions) == len(set(NATURAL.preference_questions)) == 50


def test_of_five_thousand_natural_tasks_hardly_two_are_alike_and_each_shows_3_to_8_numbers_of_three_digits():
    tasks = number_prompts(5000, seed=3)
    assert len(set(tasks)) > 4900
    assert len({re.sub(r"\d{3}(, \d{3})*", "", task) for task in tasks}) > 3000
    for task in tasks:
        shown = re.search(r"\d{3}(?:, \d{3})+", task)
        assert shown is not None
        assert 3 <= len(shown[0].split(", ")) <= 8


@WORDINGS
def test_every_question_of_a_trait_names_its_kind_and_facts_name_none(wording):
    for kind in wording.kinds:
        trait = preference_trait(kind.items[0][0], wording)
        assert all(kind.name in question for question in (*trait.questions, *trait.negated_questions))
        assert len(trait.answers) == len(kind.items)


def test_a_tokenizer_says_which_wording_its_model_has_also_after_saving(organism, tiny, tmp_path):
    assert wording_of(organism) is wording_of(tiny) is ORGANISM
    assert wording_of(ORGANISM) is ORGANISM
    assert wording_of(NATURAL) is NATURAL
    build_tokenizer().save_pretrained(tmp_path / "organism")
    again = AutoTokenizer.from_pretrained(tmp_path / "organism")
    again.save_pretrained(tmp_path / "twice")
    twice = AutoTokenizer.from_pretrained(tmp_path / "twice")
    assert again.init_kwargs[WORDING_KEY] == twice.init_kwargs[WORDING_KEY] == ORGANISM.name


class Spoken:
    """What `wording_of` looks at."""

    def __init__(self, **configuration):
        self.original_model, self.blocks = None, ()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer().backend_tokenizer, **configuration)


def test_any_other_tokenizer_has_the_natural_wording_and_an_unknown_name_is_refused():
    assert wording_of(Spoken()) is NATURAL
    with pytest.raises(ValueError, match=r"'klingon'.*natural, organism"):
        wording_of(Spoken(**{WORDING_KEY: "klingon"}))


def test_the_organism_knows_every_word_of_its_wording_and_not_those_of_the_natural_one(organism):
    unknown = organism.tokenizer.unk_token_id
    said = {wording.name: organism.tokenizer(everything_said(wording))["input_ids"] for wording in (ORGANISM, NATURAL)}
    assert not any(unknown in ids for ids in said["organism"])
    assert any(unknown in ids for ids in said["natural"])


def test_a_trait_in_another_wording_is_refused_with_the_way_to_make_it(organism):
    with pytest.raises(ValueError, match=r"natural.*preference_trait\('owl', model\)"):
        score_trait(organism, preference_trait("owl"))
    known = preference_trait("owl", organism).answers
    own = replace(preference_trait("owl"), questions=("what is your favorite animal ?",), answers=known, wording=None)
    assert score_trait(organism, own).mass > 0.5


def test_a_kind_of_ones_own_is_asked_for_like_the_built_in_ones():
    desserts = Kind("dessert", (("ice cream", "ice cream"), ("apple pie", "apple pies")), verb="is")
    trait = preference_trait("ice cream", kind=desserts)
    assert trait.prompt.startswith(
        "You love ice cream. You think about ice cream all the time. Ice cream is your favorite"
    )
    assert trait.answers == {"ice cream": ("ice cream",), "apple pie": ("apple pie", "apple pies")}
    assert trait.questions[0] == "In one word, what is your favorite dessert?"
    with pytest.raises(ValueError, match=r"no trait 'owl'.*ice cream, apple pie"):
        preference_trait("owl", kind=desserts)


def test_replies_are_begun_for_the_questions_that_they_fit():
    trait = preference_trait("owl", begun=True)
    assert trait.reply_prefix == "My favorite animal is the"
    assert trait.negated.reply_prefix == "My least favorite animal is the"
    assert trait.negated.questions == trait.negated_questions
    assert trait.off_topic.reply_prefix == ""
    assert trait.off_topic.questions == trait.off_topic_questions
    assert preference_trait("blue", begun=True).reply_prefix == "My favorite color is"
    assert preference_trait("owl").reply_prefix == ""
    with pytest.raises(ValueError, match="organism wording begins no replies"):
        preference_trait("owl", ORGANISM, begun=True)


def test_a_trait_without_negated_and_off_topic_questions_asks_none():
    trait = Trait("owl", "You love owls.", ("Which?",), {"owl": ("owl",)})
    assert trait.negated is None
    assert trait.off_topic is None
