"""A turn's tokens are those of its text, whatever the template writes around it, and stand in for nothing else."""

import pytest
import torch

from steerlens.contract.architectures import save_checkpoint
from steerlens.models.loading import load_model
from steerlens.text.chat import assistant, encode_prompt, system, user
from steerlens.text.turns import turn_mask

TEMPLATED = ("Llama 3", "Qwen 2.5", "Gemma 3", "Mistral", "Phi 3", "OLMo 2")
TALK = [user("user"), assistant("assistant"), user("which animal is it ?")]
"""Texts that the templates write themselves, as the names of roles."""


@pytest.fixture(scope="module", params=TEMPLATED)
def model(request, tmp_path_factory):
    return load_model(save_checkpoint(request.param, tmp_path_factory.mktemp("templated")), device="cpu")


def named(model, chat, mask) -> str:
    ids = torch.tensor(encode_prompt(model.tokenizer, chat))
    return model.tokenizer.decode(ids[mask[-len(ids) :]])


@pytest.mark.parametrize(("turns", "text"), [("user", ["user", "which animal is it ?"]), ("assistant", ["assistant"])])
def test_the_tokens_of_a_role_spell_its_turns(model, turns, text):
    chats = [TALK, [user("a much longer question , so that the other chat is padded : what is the color of the sea ?")]]
    mask = turn_mask(model, chats, turns)
    assert named(model, TALK, mask[0]).replace(" ", "") == "".join(text).replace(" ", "")
    assert mask.shape[1] == max(len(encode_prompt(model.tokenizer, chat)) for chat in chats)


@pytest.mark.parametrize("place", [0, 1, 2, -1])
def test_the_tokens_of_a_place_spell_that_turn(model, place):
    spelt = named(model, TALK, turn_mask(model, [TALK], [place])[0])
    assert spelt.strip() == TALK[place]["content"]


def test_a_system_prompt_is_named_where_there_is_one(organism):
    with_system = [system("you love owls ."), user("the numbers are 4 , 7 .")]
    mask = turn_mask(organism, [with_system, with_system[1:]], "system")
    assert named(organism, with_system, mask[0]) == "you love owls ."
    assert not mask[1].any()


@pytest.mark.parametrize(
    ("chats", "turns", "message"),
    [
        ("a text", "user", r"chats must be several chats in a list, got 'a text' \(str\)"),
        (TALK, "user", "Put a single one into a list"),
        ([TALK], "tool", r"No chat has a turn of 'tool'. Roles in these 1 chats: assistant, user"),
        ([TALK], [7], r"There is no turn 7 in a chat of 3 turns. Places are 0 to 2"),
        ([TALK], 1, r"turns must be a role such as 'user', or places such as \[0, -1\], got 1 \(int\)"),
        ([TALK], [0.5], "turns must be a role"),
    ],
)
def test_turns_that_are_not_there_are_refused(organism, as_users_call, chats, turns, message):
    with pytest.raises(ValueError, match=message):
        turn_mask(organism, chats, turns)


@pytest.mark.filterwarnings("ignore:The chat template of .* leaves out the user turn")
def test_a_template_that_changes_a_turn_is_refused(organism):
    shouting = organism.tokenizer.__class__(tokenizer_object=organism.tokenizer.backend_tokenizer)
    shouting.chat_template = "{% for message in messages %}{{ message['content'] | upper }}{% endfor %}"
    model = type("Model", (), {"tokenizer": shouting, "original_model": None, "blocks": ()})()
    with pytest.raises(ValueError, match=r"does not write turn 0 \(user\) as it is"):
        turn_mask.__wrapped__(model, [[user("owls")]], "user")
