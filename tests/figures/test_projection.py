"""The page of a text's projections shows the numbers that it holds, answers keys, and treats text as text."""

import json
import re

import pytest
import torch

from steerlens.figures.projection import show_projection
from steerlens.residuals.capture import capture_residuals
from steerlens.text.chat import assistant, user
from steerlens.vectors.vector import SteeringVector, VectorSource
from tests.browser import opened_page

CHAT = [user("what is your favorite animal ?"), assistant("i like owls .")]


@pytest.fixture
def vector(tiny) -> SteeringVector:
    directions = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((2,), directions, VectorSource.of(tiny, method="by hand", prompt="you love owls ."))


def test_projections_are_those_of_the_captured_residuals(tiny, vector):
    shown = show_projection(tiny, vector, CHAT)
    residuals = capture_residuals(tiny, [CHAT], layers=range(4), positions="all")
    torch.testing.assert_close(shown.projection, residuals @ vector.unit[0])
    torch.testing.assert_close(shown.cosine, shown.projection / residuals.norm(dim=-1))
    assert shown.layers == (0, 1, 2, 3)
    assert shown.tokens[shown.n_prompt :][:3] == ("i", "like", "owls")


def test_a_vector_of_several_layers_is_read_along_its_own_direction_at_each(tiny, vector):
    both = SteeringVector((3, 1), torch.randn(2, 32), vector.source)
    shown = show_projection(tiny, both, CHAT)
    residuals = capture_residuals(tiny, [CHAT], layers=[1, 3], positions="all")
    assert shown.layers == (1, 3)
    torch.testing.assert_close(shown.projection[1], residuals[1] @ both.at(3).unit[0])


def test_printing_names_the_tokens_farthest_along_the_vector(tiny, vector):
    shown = show_projection(tiny, vector, CHAT)
    row = shown.projection[2]
    assert f"most: {shown.tokens[int(row.argmax())]!r}" in str(shown)
    assert f"least: {shown.tokens[int(row.argmin())]!r}" in str(shown)


@pytest.mark.slow
def test_a_reader_moves_through_layers_and_tokens_with_keys_alone(tiny, vector, tmp_path):
    shown = show_projection(tiny, vector, CHAT)
    shown.save(tmp_path / "page.html")
    with opened_page(tmp_path / "page.html") as (page, met):

        def readout() -> str:
            return page.inner_text("#readout")

        page.focus("#layer")
        assert page.inner_text("#shown-layer") == "2"
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#shown-layer") == "3"
        page.focus("#tokens span")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#shown-layer") == "2"
        assert readout().startswith("Token 1 ")
        assert f"projection {float(shown.projection[2, 1]):.4g}"[:14] in readout()
        page.keyboard.press("End")
        assert readout().startswith(f"Token {len(shown.tokens) - 1} ")
        page.locator("#tokens span").nth(2).hover()
        assert readout().startswith("Token 2 ")
        colours = page.eval_on_selector_all("#tokens span", "spans => spans.map(s => s.style.backgroundColor)")
        assert met.errors == []
        assert all(url.startswith("file:") for url in met.requests)
    strongest = int(shown.projection[2].abs().argmax())
    red, _, blue = map(int, re.findall(r"\d+", colours[strongest]))
    assert (red > blue) == bool(shown.projection[2, strongest] > 0)


ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>%DATA%"


@pytest.mark.slow
def test_text_of_the_model_or_its_prompt_runs_nothing(tiny, vector, tmp_path):
    from dataclasses import replace

    shown = show_projection(tiny, vector, CHAT)
    hostile = replace(shown, title=ATTACK, tokens=tuple(ATTACK + token for token in shown.tokens))
    hostile.save(tmp_path / "page.html")
    (tmp_path / "cell.html").write_text(f"<!doctype html><meta charset=utf-8>{hostile._repr_html_()}")
    for name in ("page.html", "cell.html"):
        with opened_page(tmp_path / name) as (page, met):
            page.wait_for_timeout(300)
            frame = page if name == "page.html" else page.frames[1]
            assert frame.inner_text("h1") == ATTACK
            assert frame.eval_on_selector_all("#tokens span", "spans => spans.length") == len(shown.tokens)
            assert (met.errors, met.dialogs) == ([], [])


def test_the_page_holds_its_numbers_as_json(tiny, vector):
    shown = show_projection(tiny, vector, CHAT)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', shown._page(), re.S)[0])
    torch.testing.assert_close(torch.tensor(data["projection"]), shown.projection, rtol=1e-3, atol=1e-4)
    assert data["tokens"] == list(shown.tokens)
