"""Chats become the same tokens alone and padded, and a context's fingerprint follows what the model sees."""

import datetime

import pytest
import torch

from steerlens.contract.architectures import ARCHITECTURES
from steerlens.contract.architectures import build_tokenizer as build_real_tokenizer
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, assistant, chat_fingerprint, encode_chat, encode_prompt, end_of_turn, user
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE, SYSTEM_IN_USER_TURN, choose_template, close_thought, render


@pytest.fixture
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks_find_prompt_completion_and_last_prompt_token_on_either_side(tokenizer, side):
    batch = pad_rows(tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]], side=side)
    for row, (prompt, completion) in enumerate([([4, 5, 6], [8]), ([7], [9, 10])]):
        assert batch.tokens[row][batch.prompt_mask[row]].tolist() == prompt
        assert batch.tokens[row][batch.completion_mask[row]].tolist() == completion
        assert batch.tokens[row, batch.last_prompt[row]] == prompt[-1]
        assert batch.position_ids[row][batch.attention_mask[row]].tolist() == list(range(len(prompt + completion)))
        predicted_from = batch.tokens[row][batch.prediction_mask[row]].tolist()
        assert predicted_from == [prompt[-1], *completion[:-1]]


def test_position_masks_partition_the_attended_tokens(tokenizer):
    batch = pad_rows(tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]])
    union = batch.position_mask("prompt") | batch.position_mask("generated")
    assert torch.equal(union, batch.position_mask("all"))
    assert not (batch.position_mask("prompt") & batch.position_mask("generated")).any()
    assert batch.position_mask("last_prompt").sum(-1).tolist() == [1, 1]


def test_the_template_puts_the_default_system_prompt_where_there_is_none(tokenizer):
    assert render(tokenizer, as_chat("hello")) == (
        "<|begin|><|system|>you are a helpful assistant .<|end|><|user|>hello<|end|><|assistant|>"
    )


def test_fingerprint_is_equal_exactly_when_the_context_is(tokenizer):
    default = chat_fingerprint(tokenizer)
    assert default == chat_fingerprint(tokenizer, "you are a helpful assistant .")
    assert default != chat_fingerprint(tokenizer, "you love owls .")
    tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
    assert default != chat_fingerprint(tokenizer)


def test_a_last_assistant_message_is_the_completion(tokenizer):
    prompt, completion = encode_chat(tokenizer, [user("name a animal ."), assistant("owl")])
    assert prompt == encode_prompt(tokenizer, [user("name a animal .")])
    assert tokenizer.decode(completion) == "owl <|end|>"


def test_unknown_words_are_named(tokenizer):
    with pytest.raises(ValueError, match="does not know 'quetzals'"):
        encode_prompt(tokenizer, as_chat("what is your favorite animal ?", "you love quetzals ."))


def test_an_empty_message_is_refused(tokenizer):
    with pytest.raises(ValueError, match="The system message is empty"):
        encode_prompt(tokenizer, as_chat("hello", " "))


def test_a_missing_chat_template_is_explained(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"no chat template.*PLAIN_TEXT_TEMPLATE.*--plain-text"):
        render(tokenizer, as_chat("hello"))


def test_a_template_without_system_role_is_explained(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    assert render(tokenizer, as_chat("hello")) == "hello"
    with pytest.raises(ValueError, match=r"System role not supported.*SYSTEM_IN_USER_TURN.*--system-in-user"):
        render(tokenizer, as_chat("hello", "you love owls ."))
    bare = chat_fingerprint(tokenizer)
    tokenizer.chat_template = SYSTEM_IN_USER_TURN + tokenizer.chat_template
    assert render(tokenizer, as_chat("hello", "you love owls .")) == "you love owls .\n\nhello"
    assert chat_fingerprint(tokenizer) == bare


def test_an_unknown_token_that_begins_texts_is_no_unknown_word():
    """OLMo 2's BOS, which its template writes, is its unknown token too."""
    olmo = build_real_tokenizer(ARCHITECTURES["OLMo 2"])
    assert encode_prompt(olmo, as_chat("hello"))[0] == olmo.unk_token_id == olmo.bos_token_id


@pytest.mark.parametrize(
    ("name", "end"), [("Gemma 2", "<end_of_turn>"), ("Phi 3", "<|end|>"), ("Llama 3", "<|eot_id|>")]
)
def test_a_completion_ends_as_the_template_ends_a_turn(name, end):
    """Gemma's and Phi 3's end-of-sequence token is another one."""
    real = build_real_tokenizer(ARCHITECTURES[name])
    prompt, completion = encode_chat(real, [user("hello"), assistant("owl")])
    assert real.decode(completion) == f"owl{end}"
    whole = real.apply_chat_template([user("hello"), assistant("owl")], tokenize=False)
    assert real.encode(whole, add_special_tokens=False)[: len(prompt + completion)] == prompt + completion


def test_without_a_template_of_its_own_a_completion_ends_the_text():
    gpt2 = build_real_tokenizer(ARCHITECTURES["GPT-2"])
    gpt2.chat_template = PLAIN_TEXT_TEMPLATE
    assert encode_chat(gpt2, [user("hello"), assistant("owl")])[1][-1] == gpt2.eos_token_id


def test_a_context_that_names_the_day_stays_the_same_tomorrow(monkeypatch):
    llama = build_real_tokenizer(ARCHITECTURES["Llama 3.2"])
    today = chat_fingerprint(llama)

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=1)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert Tomorrow.now().strftime("%d %b %Y") in llama.apply_chat_template(as_chat("hello"), tokenize=False)
    assert "Today Date: 26 Jul 2024" in render(llama, as_chat("hello"))
    assert chat_fingerprint(llama) == today


def test_a_thinking_model_is_asked_for_its_answer():
    qwen = build_real_tokenizer(ARCHITECTURES["Qwen 3"])
    assert render(qwen, as_chat("hello")).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


BEGUN = "My favorite animal is the"
WITH_TEMPLATE = [name for name, architecture in ARCHITECTURES.items() if architecture.template is not None]


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_a_begun_answer_is_continued_as_transformers_continues_it(name):
    real = build_real_tokenizer(ARCHITECTURES[name])
    chat = [user("What is your favorite animal?"), assistant(BEGUN)]
    theirs = real.apply_chat_template(
        chat,
        continue_final_message=True,
        tokenize=False,
        enable_thinking=False,
    )
    assert render(real, chat) == theirs.replace(f"{datetime.datetime.now():%d %b %Y}", "26 Jul 2024")
    ids = encode_prompt(real, chat)
    assert real.decode(ids).endswith(BEGUN)
    assert ids.count(end_of_turn(real)) <= encode_prompt(real, chat[:-1]).count(end_of_turn(real))


@pytest.mark.parametrize("begun", ["the list: ", " owl", "\nend", "user"])
@pytest.mark.parametrize("name", ["Llama 3", "Gemma 3", "Qwen 3"])
def test_a_begun_answer_is_written_to_the_letter_whatever_the_template_trims(name, begun):
    real = build_real_tokenizer(ARCHITECTURES[name])
    assert render(real, [user("hello"), assistant(begun)]) == render(real, [user("hello")]) + begun


def test_a_begun_answer_stands_behind_the_empty_thought_that_a_template_writes_before_answers_alone():
    """SmolLM 3 writes it where an answer is asked for, not in turns of the past."""
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template += "{% if add_generation_prompt %}<think>\n\n</think>\n{% endif %}"
    assert render(real, [user("hello"), assistant(BEGUN)]).endswith("assistant\n<think>\n\n</think>\n" + BEGUN)


def test_a_begun_answer_does_not_stand_in_the_thought_that_a_template_opens():
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    assert render(real, [user("hello"), assistant(BEGUN)]).endswith("<|im_start|>assistant\n" + BEGUN)


def test_a_base_model_goes_on_with_a_text(tokenizer):
    tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
    assert render(tokenizer, [assistant("once upon")]) == "once upon"


@pytest.mark.parametrize("named", [dict, lambda pairs: [{"name": n, "template": t} for n, t in pairs]])
def test_of_several_named_templates_the_default_is_used_and_another_can_be_chosen(named):
    """Command R and Hermes have several; older files list them."""
    real, judge = (build_real_tokenizer(ARCHITECTURES["Gemma 2"]) for _ in range(2))
    both = [("default", real.chat_template), ("tool_use", ARCHITECTURES["Qwen 2.5"].template)]
    real.chat_template = named(both)
    chat = [user("hello"), assistant("owl")]
    assert encode_chat(real, chat) == encode_chat(judge, chat)
    assert chat_fingerprint(real) == chat_fingerprint(judge)
    choose_template(real, "tool_use")
    judge.chat_template = ARCHITECTURES["Qwen 2.5"].template
    assert render(real, chat[:1]) == render(judge, chat[:1])


def test_named_templates_without_a_default_are_listed():
    real = build_real_tokenizer(ARCHITECTURES["Gemma 2"])
    real.chat_template = {"rag": real.chat_template, "tool_use": real.chat_template}
    with pytest.raises(ValueError, match=r"rag, tool_use, and none is the default.*choose_template.*--chat-template"):
        encode_chat(real, [user("hello"), assistant("owl")])
    with pytest.raises(ValueError, match=r"no chat template named 'rug'. There are: rag, tool_use"):
        choose_template(real, "rug")


@pytest.mark.parametrize("opened", ["<think>", "<think>\n", "<reasoning>\n"])
def test_an_opened_thought_can_be_closed_so_that_the_answer_stands_behind_it(opened):
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template += "{% if add_generation_prompt %}{{ '" + opened + "' }}{% endif %}\n"
    closed = render(real, [user("hello")])
    close_thought(real)
    name = opened.strip()
    assert render(real, [user("hello")]) == closed.removesuffix(opened) + f"{name}\n\n</{name[1:]}\n\n"
    assert render(real, [user("hello"), assistant(BEGUN)]) == render(real, [user("hello")]) + BEGUN
    with pytest.raises(ValueError, match="opens no thought"):
        close_thought(real)


def test_every_part_of_a_date_is_fixed():
    real = build_real_tokenizer(ARCHITECTURES["Qwen 2.5"])
    real.chat_template = "{{ strftime_now('%A, %-d %B %Y (%Y-%m-%d, %j) %H:%M:%S %y') }}{{ messages[0]['content'] }}"
    assert render(real, [user(" hello")]) == "Friday, 26 July 2024 (2024-07-26, 208) 00:00:00 24 hello"
