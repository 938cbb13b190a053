"""What is shown as steered is what steering changes, and it reads in a terminal and in a notebook."""

import inspect
import re

import pytest
import torch

from steerlens.forward import forward
from steerlens.models.bridge import huggingface_model
from steerlens.residuals.stream import watch_residuals
from steerlens.text.batches import pad_rows
from steerlens.text.chat import assistant, encode_chat, user
from steerlens.text.positions import POSITIONS
from steerlens.vectors.interventions import steer
from steerlens.vectors.show import ShownPositions, show_positions
from steerlens.vectors.vector import SteeringVector, VectorSource

CHAT = [user("the sequence starts with 4 , 7 . give the next numbers ."), assistant("12 , 7")]


def residuals(model, run) -> torch.Tensor:
    """The residual after block 1 at every position of all forwards of `run`, [pos d_model]."""
    seen = []
    with torch.no_grad(), watch_residuals(model, {1: lambda resid: seen.append(resid[0].clone())}):
        run()
    return torch.cat(seen)


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_shown_tokens_are_those_whose_residual_changes_in_a_forward_and_in_generation(any_model, positions):
    hf, tokenizer = huggingface_model(any_model), any_model.tokenizer
    prompt, completion = encode_chat(tokenizer, CHAT)
    ids = torch.tensor([prompt + completion])

    def in_one_forward():
        forward(any_model, pad_rows(tokenizer, [prompt], [completion]))

    def token_by_token():
        cache = hf(input_ids=ids[:, : len(prompt)], use_cache=True).past_key_values
        for i in range(len(prompt), ids.shape[1]):
            hf(input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True)

    vector = SteeringVector((1,), torch.ones(1, 32), VectorSource.of(any_model, method="by hand"))
    shown = show_positions(any_model, CHAT, positions)
    for run in (in_one_forward, token_by_token):
        plain = residuals(any_model, run)
        with steer(any_model, vector, positions=positions):
            changed = (residuals(any_model, run) != plain).any(-1)
        assert tuple(changed.tolist()) == shown.steered
    assert len(shown.tokens) == ids.shape[1]


def test_the_default_is_what_steering_changes_by_default(organism):
    default = inspect.signature(steer).parameters["positions"].default
    assert show_positions(organism, CHAT) == show_positions(organism, CHAT, default)
    question = CHAT[0]["content"]
    shown = show_positions(organism, question, "last_prompt")
    assert shown.steered == (False,) * (len(shown.tokens) - 1) + (True,)


def test_the_terminal_underlines_the_steered_tokens_and_no_others(organism):
    shown = show_positions(organism, CHAT, "generated")
    caption, *lines = str(shown).split("\n")
    assert caption == "4 of 29 tokens are steered at positions='generated'."
    text, marks = lines[-2:]
    assert text[marks.index("^") :] == "12 , 7 <|end|>"
    assert [match.span() for match in re.finditer(r"\^+", marks)] == [
        match.span() for match in re.finditer(r"\S+", text) if match.start() >= marks.index("^")
    ]
    assert all(len(line) <= 100 for line in lines)


def test_the_notebook_view_escapes_what_the_chat_says():
    shown = ShownPositions("prompt", ("<script>", "\\n", "a & b"), (True, False, False))
    view = shown._repr_html_()
    assert "<script>" not in view
    assert "&lt;script&gt;" in view
    assert view.count("#ffd54f") == 1


def test_line_breaks_are_shown_and_do_not_break_the_lines(tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "decode", lambda _ids: "\n")
    assert set(show_positions(tiny, CHAT).tokens) == {"\\n"}


def test_positions_that_do_not_exist_are_refused(tiny):
    with pytest.raises((ValueError, TypeError)):
        show_positions(tiny, CHAT, "everywhere")
