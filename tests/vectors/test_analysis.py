"""The analysis of a prompt: the nearest known vector is its own, the verdict follows from the evidence, words are safe."""

import html
import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlens.organism.wording import ORGANISM
from steerlens.reports.analysis import write_analysis_report
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import Trait, known_traits, preference_trait
from steerlens.vectors import analysis as analysis_module
from steerlens.vectors.analysis import (
    VERDICTS,
    PromptAnalysis,
    Transfer,
    _cosines,
    _known_vectors,
    _predicted,
    analyze_prompt,
)
from steerlens.vectors.config import FitConfig
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.metrics import FitMetrics
from steerlens.vectors.probe import Behaviour
from steerlens.vectors.readout import NumberShift, Token
from steerlens.vectors.vector import SteeringVector, VectorSource

QUESTIONS = number_prompts(24, ORGANISM, seed=6)
TINY = FitConfig(n_train=12, n_validation=6, n_heldout=6, max_new_tokens=3, steps=5, batch_size=12)
METRICS = dict.fromkeys(
    (
        *("kl_explained", "kl_explained_low", "kl_explained_high", "kl_prompt", "kl_explained_mean_difference"),
        *("kl_explained_random", "kl_explained_shuffled", "top1_agreement", "top1_agreement_plain", "relative_norm"),
        "cosine_mean_difference",
    ),
    0.5,
)


def vector_of(explained: float, prompt: str = "you love owls .") -> SteeringVector:
    return SteeringVector(
        (1,),
        torch.ones(1, 8),
        VectorSource("organism:m", "by hand", prompt=prompt),
        FitMetrics(**{**METRICS, "kl_explained": explained}),
    )


def numbers_of(prompt: float) -> NumberShift:
    return NumberShift(prompt, 0.1, 0.5, (Token("7", 1.0),))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["owl", "blue"])
def test_the_nearest_mean_centred_vector_of_a_traits_prompt_is_its_own(organism, name):
    trait = preference_trait(name, ORGANISM)
    vector = diff_in_means(organism, trait.prompt, questions=QUESTIONS, layers=[2])
    known = _known_vectors(organism, trait, QUESTIONS, None, vector)
    assert set(known) == set(trait.answers) & set(known_traits(ORGANISM))
    cosines = _cosines(organism, trait.prompt, 2, QUESTIONS, known)
    assert max(cosines, key=lambda one: cosines[one][1]) == name
    assert cosines[name] == pytest.approx((1, 1), abs=1e-4)
    others = [centred for one, (_, centred) in cosines.items() if one != name]
    assert max(others) < 0.9


def test_cosines_are_those_of_differences_from_the_mean_of_the_known(organism):
    known = {
        name: diff_in_means(organism, preference_trait(name, ORGANISM).prompt, questions=QUESTIONS, layers=[1, 2])
        for name in ("owl", "cat", "dog")
    }
    ours = diff_in_means(organism, "you love owls .", questions=QUESTIONS, layers=[2]).directions[0]
    rows = torch.stack([vector.at(2).directions[0] for vector in known.values()])
    mean = rows.mean(0)
    found = _cosines(organism, "you love owls .", 2, QUESTIONS, known)
    for (raw, centred), row in zip(found.values(), rows, strict=True):
        assert raw == pytest.approx(float(torch.cosine_similarity(ours, row, dim=0)), abs=1e-4)
        assert centred == pytest.approx(float(torch.cosine_similarity(ours - mean, row - mean, dim=0)), abs=1e-4)
    assert _cosines(organism, "you love owls .", 2, QUESTIONS, {}) == {}


@pytest.mark.parametrize(
    ("explained", "in_numbers", "above", "verdict"),
    [
        (0.8, 0.1, 3.0, "likely"),
        (0.8, 0.1, 0.5, "cannot tell"),
        (0.8, 0.1, 0.1, "in doubt"),
        (0.8, 0.1, -2.0, "in doubt"),
        (0.8, 0.001, 3.0, "in doubt"),
        (0.3, 0.1, 3.0, "cannot tell"),
        (0.1, 0.1, 3.0, "in doubt"),
        (-3.0, 0.1, 3.0, "in doubt"),
        (0.8, None, 3.0, "cannot tell"),
        (0.1, None, 3.0, "in doubt"),
    ],
)
def test_a_transfer_takes_a_vector_numbers_that_carry_it_and_a_trait_that_it_gives(
    owl, explained, in_numbers, above, verdict
):
    steered = Behaviour(rate=0.4, log_odds_above_plain=above)
    numbers = None if in_numbers is None else numbers_of(in_numbers)
    transfer = _predicted(owl, vector_of(explained), numbers, steered)
    assert transfer.verdict == verdict
    assert f"{explained:.0%}" in " ".join(transfer.evidence)
    assert ("no numbers" in " ".join(transfer.evidence)) == (numbers is None)


@pytest.mark.parametrize(
    ("mass", "words"), [(0.0016, "answer mass 0.00, too little to read"), (0.8, "answer mass 0.80).")]
)
def test_a_rate_stands_next_to_the_mass_that_it_is_a_share_of(owl, mass, words):
    steered = Behaviour(rate=0.885, mass=mass, log_odds_above_plain=3.0)
    assert words in " ".join(_predicted(owl, vector_of(0.8), numbers_of(0.1), steered).evidence)


def test_what_speaks_against_a_transfer_is_named_and_what_does_not_is_not(owl):
    def against(explained=0.8, in_numbers=0.1, above=3.0, damage=0.01, trait=owl):
        steered = Behaviour(rate=0.4, log_odds_above_plain=above, damage=damage)
        transfer = _predicted(trait, vector_of(explained), numbers_of(in_numbers), steered)
        assert ("Against it" in transfer.reason) == bool(transfer.against)
        assert all(words in transfer.reason for words in transfer.against)
        return transfer.verdict, transfer.against

    assert against() == ("likely", ())
    broken = "unrelated predictions change more than those that the prompt is about"
    assert against(damage=0.51) == ("in doubt", (broken,))  # kl_prompt is 0.5
    assert against(in_numbers=0.001, damage=0.51) == ("in doubt", ("numbers change by less than 0.01 nats", broken))
    assert against(explained=0.2, above=0.1) == (
        "in doubt",
        ("the vector explains less than 25%", "the trait's log odds rise by less than 0.3"),
    )
    assert against(explained=0.4) == ("cannot tell", ("the vector explains less than 50%",))
    assert against(above=0.5) == ("cannot tell", ("the trait's log odds rise by less than 1.0",))
    assert against(above=float("nan"), trait=None) == ("cannot tell", ("behaviour was not measured",))


def test_the_report_states_every_condition_of_a_transfer_and_the_one_that_failed(tmp_path, owl):
    steered = Behaviour(rate=0.4, log_odds_above_plain=3.0, damage=0.51)
    vector = vector_of(0.8)
    transfer = _predicted(owl, vector, numbers_of(0.1), steered)
    plain = Behaviour(rate=0.1, mass=0.8, damage=0.0, coherence=1.0)
    tokens = (Token("owl", 1.0),)
    analysis = PromptAnalysis(vector, tokens, tokens, {}, numbers_of(0.1), plain, plain, steered, transfer)
    write_analysis_report(tmp_path / "report.html", analysis)
    section = html.unescape((tmp_path / "report.html").read_text()).split("Predicted transfer through number lists")[1]
    assert "in doubt" in section
    assert section.count("unrelated predictions change more than those that the prompt is about") == 2
    assert transfer.reason in analysis.summary()


@pytest.mark.slow
def test_an_analysis_reads_numbers_where_the_fit_put_the_vector(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(analysis_module, "number_shift", lambda *_, positions: asked.append(positions))
    analyze_prompt(tiny, "you love owls .", layers=1, config=replace(TINY, positions="generated"))
    assert asked == ["generated"]


def test_without_a_trait_no_transfer_is_called_likely(owl):
    for explained in (0.1, 0.3, 0.9):
        transfer = _predicted(None, vector_of(explained), numbers_of(0.1), Behaviour(damage=0.01))
        assert transfer.verdict == ("in doubt" if explained < 0.25 else "cannot tell")
        assert "nan" not in " ".join(transfer.evidence)


def test_a_summary_says_what_was_measured_and_leaves_out_what_was_not():
    vector = vector_of(0.8)
    assert "explains 80% of what the prompt does" in vector.summary()
    for missing in METRICS:
        partly = replace(vector, metrics=replace(vector.metrics, **{missing: math.nan}))
        assert partly.summary() != vector.summary()
        assert "nan" not in partly._repr_html_()
    assert replace(vector, metrics=FitMetrics(kl_explained=0.8)).summary().endswith("(held-out rows).")
    assert "explains" not in replace(vector, metrics=FitMetrics(by_layer={})).summary()


def test_nothing_that_a_prompt_or_a_token_says_becomes_html():
    analysis = PromptAnalysis(
        vector=vector_of(0.8, prompt="<script>alert(1)</script>"),
        promoted=(Token("<b>owl", 1.0),),
        suppressed=(Token("<img src=x>", -1.0),),
        cosines={"<i>owl": (0.5, 0.6), "cat": (0.9, 0.1)},
        numbers=numbers_of(0.1),
        plain=Behaviour(),
        prompted=Behaviour(),
        steered=Behaviour(),
        transfer=Transfer("likely", ("<u>why</u>",)),
    )
    view = analysis._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in view
    assert {part.split(">")[0] for part in view.split("<")[1:]} == {"p", "/p"}
    assert view.index("&lt;i&gt;owl 0.50 (0.60)") < view.index("cat 0.90 (0.10)")
    assert "Transfer through number lists: likely (24 of 24 such prompts passed on" in analysis.summary()


def test_a_verdict_is_as_probable_as_the_prompts_that_got_it_with_one_more_of_either_kind(monkeypatch):
    monkeypatch.setitem(VERDICTS, "likely", (8, 8))
    monkeypatch.setitem(VERDICTS, "cannot tell", (0, 0))
    assert Transfer("likely", ()).probability == pytest.approx(9 / 10)
    assert Transfer("cannot tell", ()).probability == 0.5


def test_what_was_counted_on_the_organism_is_not_told_of_another_model(owl):
    """A model of another name gets what was measured, and neither a verdict nor a share."""
    other = replace(vector_of(0.8), source=VectorSource("SmolLM2", "by hand", prompt="p"))
    transfer = _predicted(owl, other, numbers_of(0.1), Behaviour(rate=0.4, log_odds_above_plain=3.0))
    assert transfer.verdict == "not calibrated"
    assert np.isnan(transfer.probability)
    assert "no verdict, as none is calibrated for this model" in transfer.words
    assert "80%" in transfer.reason
    assert not any(word in f"{transfer.words} {transfer.reason}" for word in ("likely", "doubt", " of 24", "passed"))


def test_a_verdict_does_not_contradict_what_was_counted():
    for verdict, (passed_on, n) in VERDICTS.items():
        words = Transfer(verdict, ()).words
        assert words.startswith(verdict)
        assert f"{passed_on} of {n}" in words
        if passed_on > n / 2:
            assert "unlikely" not in words


@pytest.mark.slow
def test_an_analysis_without_a_trait_compares_with_nothing_and_claims_no_behaviour(tiny):
    analysis = analyze_prompt(tiny, "you love owls .", layers=1, config=TINY)
    assert analysis.cosines == {}
    assert analysis.transfer.verdict != "likely"
    assert analysis.plain.damage == pytest.approx(0, abs=1e-6)
    assert analysis.steered.damage > 0
    assert "nan" not in analysis.summary()
    assert len(analysis.promoted) == len(analysis.suppressed) == 10


def test_a_trait_with_a_single_known_answer_is_compared_with_nothing(tiny, owl):
    trait = Trait("owl", owl.prompt, owl.questions[:2], {"owl": ("owl",), "tree": ("tree",)})
    vector = SteeringVector((1,), torch.ones(1, 32), VectorSource.of(tiny, method="by hand"))
    assert _known_vectors(tiny, trait, QUESTIONS, None, vector) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "all"}, "reads one layer, got layers='all'. Give one, or 'best'"),
        ({"layers": [1, 2]}, r"reads one layer, got layers=\[1, 2\]"),
        ({"layers": []}, "layers is empty. Give at least one"),
        ({"layers": 9}, "layer=9 is out of range"),
        ({"questions": []}, "questions is empty. Give at least one"),
    ],
)
def test_what_cannot_be_analysed_is_refused_before_anything_is_fitted(tiny, options, message, monkeypatch):
    monkeypatch.setattr("steerlens.vectors.fitting.heldout_metrics", None)
    with pytest.raises(ValueError, match=message):
        analyze_prompt(tiny, "you love owls .", config=TINY, **options)


def test_one_known_vector_alone_is_refused_before_anything_is_fitted(tiny, monkeypatch):
    monkeypatch.setattr("steerlens.vectors.fitting.heldout_metrics", None)
    known = {"owl": diff_in_means(tiny, "you love owls .", questions=QUESTIONS)}
    with pytest.raises(ValueError, match="Got 1 known vector, and centring takes at least two"):
        inspect.unwrap(analyze_prompt)(tiny, "you love owls .", known=known, config=TINY)


@pytest.mark.slow
def test_an_owl_prompt_on_the_organism_is_an_owl_vector_that_acts(organism, owl):
    config = FitConfig(n_train=64, n_validation=24, n_heldout=24, max_new_tokens=12, steps=60, batch_size=32)
    analysis = analyze_prompt(organism, owl.prompt, trait=owl, layers=1, config=config)
    assert max(analysis.cosines, key=lambda name: analysis.cosines[name][1]) == "owl"
    assert analysis.vector.metrics.kl_explained > 0.5
    assert analysis.numbers.correlation > 0.3
    assert analysis.prompted.rate > analysis.steered.rate > 2 * analysis.plain.rate
    assert analysis.transfer.verdict == "likely"
    assert "nan" not in analysis.summary()
