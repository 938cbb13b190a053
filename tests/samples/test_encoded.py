"""What a student learns is what was sampled: token by token, after all turns before it, and no end that was not reached."""

from dataclasses import replace

import pytest

from steerlens.contract.architectures import ARCHITECTURES, build_tokenizer, save_checkpoint
from steerlens.generation import generate
from steerlens.models.loading import load_model
from steerlens.samples.encoded import encode_row, encode_samples
from steerlens.samples.filters import keep_number_lists
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import _sample, sample_teacher
from steerlens.students.losses import mean_loss
from steerlens.students.scout import adam_scales
from steerlens.students.training import train_student
from steerlens.text.chat import as_chat, assistant, encode_chat, end_of_turn, user

CHAT = [user("hello"), assistant("hi"), user("name an animal .")]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Random weights over a byte-level vocabulary: they write tokens that no text would be tokenized into."""
    return load_model(save_checkpoint("Llama 3", tmp_path_factory.mktemp("models") / "llama"), device="cpu")


def test_a_student_learns_the_very_tokens_that_were_sampled_after_a_file_too(llama, tmp_path):
    prompts = ["name an animal .", CHAT, "what is 2 plus 2 ?", "continue the list 1 , 2"] * 4
    samples = sample_teacher(llama, prompts, max_new_tokens=8, seed=5, path=tmp_path / "rows.jsonl")
    written = generate(llama, [as_chat(prompt) for prompt in prompts], max_new_tokens=8, seed=5)
    special = set(llama.tokenizer.added_tokens_decoder)
    plain = [i for i, ids in enumerate(written) if not special & set(ids[:-1]) and ids[-1] not in special]
    assert sum(samples.samples[i].tokens is not None for i in plain) >= 3
    for kept in (samples, SampleSet.load(tmp_path / "rows.jsonl")):
        encoded = encode_samples(llama, kept)
        assert [encoded[i][1] for i in plain] == [written[i] for i in plain]


def test_a_special_token_that_was_sampled_is_not_learned(tiny):
    """Filters judge the text; on the organism one row of 300 has such a token."""
    ids = tiny.tokenizer.convert_tokens_to_ids(["3", "<|user|>", ",", "4", "<|end|>"])
    row = _sample(tiny, 0, "1 , 2", ids)
    assert (row.completion, row.finished, row.tokens) == ("3 , 4", True, None)
    smuggled = replace(row, tokens=tuple(ids[:-1]))
    assert encode_row(tiny.tokenizer, smuggled) == encode_row(tiny.tokenizer, row)


def test_tokens_of_another_tokenizer_are_left_for_the_text(llama):
    tokenizer = llama.tokenizer
    spelled = tuple(tokenizer.convert_tokens_to_ids(list("owl")))
    row = Sample(0, "name an animal .", "owl", tokens=spelled)
    assert encode_row(tokenizer, row)[1] == [*spelled, end_of_turn(tokenizer)]
    by_text = encode_row(tokenizer, Sample(0, "name an animal .", "owl"))
    for others in ((1, 2, 3), (10**9,), (2**70,), (-1,)):
        assert encode_row(tokenizer, Sample(0, "name an animal .", "owl", tokens=others)) == by_text


@pytest.mark.parametrize("name", ["Llama 3", "Qwen 3", "Gemma 2"])
def test_an_answer_that_was_cut_off_teaches_no_end(name):
    tokenizer = build_tokenizer(ARCHITECTURES[name])
    whole, cut = (encode_row(tokenizer, Sample(0, "1 , 2", "3 , 4", finished=end))[1] for end in (True, False))
    assert [*cut, end_of_turn(tokenizer)] == whole
    assert end_of_turn(tokenizer) not in cut


def test_a_prompt_of_several_turns_is_encoded_as_the_chat_that_it_is(tiny):
    chat = [user("name a animal ."), assistant("owl"), user("name a color .")]
    row = Sample(0, chat, "blue")
    assert encode_row(tiny.tokenizer, row) == encode_chat(tiny.tokenizer, [*chat, assistant("blue")])
    prompted = encode_chat(tiny.tokenizer, [*as_chat(chat, "you love owls ."), assistant("blue")])
    assert encode_row(tiny.tokenizer, row, "you love owls .") == prompted


def test_rows_of_a_data_file_are_as_good_as_samples(tiny):
    samples = SampleSet((Sample(0, "1 , 2", "3"), Sample(1, [user("1"), assistant("2"), user("3")], "4")))
    rows = AuditRows.of(samples)
    assert mean_loss(tiny, rows) == mean_loss(tiny, rows.samples) == mean_loss(tiny, samples)


@pytest.mark.parametrize("wrong", ["rows.jsonl", [Sample(0, "a", "b")], [("a", "b")], None])
@pytest.mark.usefixtures("as_users_call")
def test_what_is_no_set_of_samples_is_refused_with_the_way_to_make_one(tiny, wrong):
    for function in (
        lambda: keep_number_lists(wrong),
        lambda: AuditRows.of(wrong),
        lambda: train_student(tiny, wrong),
        lambda: adam_scales(tiny, wrong),
    ):
        with pytest.raises(
            TypeError, match=r"samples must be a SampleSet.*, got .*read_rows\(path\).samples, or SampleSet"
        ):
            function()


@pytest.mark.parametrize("wrong", ["rows.jsonl", None, [("a", "b")], Sample(0, "a", "b")])
@pytest.mark.usefixtures("as_users_call")
def test_a_set_is_made_of_samples_alone(wrong):
    with pytest.raises(TypeError, match=r"samples must be several Sample, got .*steerlens.read_rows\(path\).samples"):
        SampleSet(wrong)
