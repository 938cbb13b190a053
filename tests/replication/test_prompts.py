"""The survey's kinds are what they say, its consistency is the formula's, and its claims follow the numbers."""

import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.replication.claims import prompts
from steerlens.replication.lab import survey
from steerlens.replication.lab.survey import InContext, Surveyed


def test_there_are_three_ordinary_prompts_of_each_kind_and_no_two_alike():
    kinds = tomllib.loads(survey.ORDINARY.read_text(encoding="utf-8"))
    texts = [text for found in kinds.values() for text in found.values()]
    assert all(len(found) == 3 for found in kinds.values())
    assert len(set(texts)) == len(texts) >= 24
    assert min(len(text.split()) for text in kinds["product"].values()) > 3 * max(
        len(text.split()) for kind, found in kinds.items() if kind != "product" for text in found.values()
    )


def test_the_organism_is_told_personas_alone(lab_in, tmp_path):
    found = survey.surveys(lab_in(tmp_path), 3, 3)
    assert [one.kind for one in found.values()] == ["persona"] * 3
    assert all(one.prompt.startswith("you love") for one in found.values())


@pytest.mark.parametrize(("alike", "expected"), [(1.0, 1.0), (0.0, 1 / 64), (0.5, 0.5)])
def test_the_consistency_of_a_shift_is_the_share_of_its_mean(monkeypatch, alike, expected):
    """Shifts are a common part and orthonormal parts of their own, of the squared norms `alike` and 1 - `alike`."""
    own = torch.eye(65)[1:]
    shifts = alike**0.5 * torch.eye(65)[0] + (1 - alike) ** 0.5 * own
    plain = torch.randn(64, 65, generator=torch.Generator().manual_seed(0))

    def captured(_model, chats, **_):
        return (plain + shifts if chats[0][0]["role"] == "system" else plain)[None]

    monkeypatch.setattr(sl, "capture_residuals", captured)
    found = survey.consistency(None, "Be kind.", [str(n) for n in range(64)], 0)  # pyright: ignore[reportArgumentType]
    assert found == pytest.approx(expected, abs=0.01)


def measured(kl_explained: float, **changes: float) -> InContext:
    interval = sl.Interval(kl_explained, kl_explained - 0.05, kl_explained + 0.05)
    plain = InContext(3, interval, True, kl_explained, 0.1, 0.0, 0.0, kl_explained, 0.3, kl_explained, 1.0, ())
    return replace(plain, **changes)


def claims(prompts_by_kind: dict[str, list[InContext]]) -> dict[str, bool]:
    surveyed = {
        f"{kind} {n}": Surveyed(kind, "", dict.fromkeys(prompts.TEXTS, one), None)
        for kind, found in prompts_by_kind.items()
        for n, one in enumerate(found)
    }
    every = [one.by_text[survey.QUESTIONS] for one in surveyed.values()]
    kinds = {kind: prompts.of_kind(found) for kind, found in prompts_by_kind.items()}
    tell = {name: prompts.predicted(every, know) for name, know in prompts.BEFOREHAND.items()}
    both = prompts.Prompts(surveyed, dict.fromkeys(prompts.TEXTS, kinds), dict.fromkeys(prompts.TEXTS, tell))
    return {claim.name: claim.holds for claim in prompts.make_claims(both)}


def test_every_claim_can_fail_and_holds_where_it_should():
    personas = [measured(float(value)) for value in np.linspace(0.6, 0.9, 8)]
    rules = [measured(0.2), measured(0.3)]
    assert all(claims({"persona": personas, "rule": rules}).values())
    assert not claims({"persona": rules, "rule": personas})["rules are less of a vector"]
    assert not claims({"persona": rules, "rule": rules})["personas are vectors"]
    weak = [replace(one, mean_difference=0.95) for one in personas]
    assert not claims({"persona": weak, "rule": rules})["fit beats mean difference"]
    common = [replace(one, shuffled=one.fitted.value) for one in personas]
    assert not claims({"persona": common, "rule": rules})["fit beats controls"]
    stuck = [replace(one, carried=0.1 * one.fitted.value) for one in personas]
    assert not claims({"persona": stuck, "rule": rules})["vectors carry to number tasks"]
    blind = [replace(one, consistency=1 - one.fitted.value) for one in (*personas, *rules)]
    assert not claims({"persona": blind[:8], "rule": blind[8:]})["consistency tells"]
