"""The sweep measures what a fit measures, finds the planted setting, and calls clean nothing that breaks something."""

from dataclasses import replace

import pytest
import torch

from steerlens.organism.wording import ORGANISM
from steerlens.text.number_lists import number_prompts
from steerlens.vectors import fit_data
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import fit_prompt_vector
from steerlens.vectors.probe import Behaviour, Probe
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.sweep import LayerSweep, SweepPoint, sweep_layers
from steerlens.vectors.vector import SteeringVector, VectorSource
from tests.vectors.test_fitting import plant

NAN = float("nan")
PLAIN = Behaviour(rate=0.1, mass=0.8, negated=0.02, off_topic=0.0, log_odds_above_plain=0.0, damage=0.0, coherence=1.0)
PROMPTED = replace(PLAIN, rate=0.9, log_odds_above_plain=4.0, damage=0.2)
GOOD = replace(PLAIN, rate=0.6, negated=0.05, off_topic=0.01, log_odds_above_plain=2.0, damage=0.1, coherence=0.9)


def point(method="fitted", layer=1, strength=1.0, low=0.6, behaviour=GOOD, **changed) -> SweepPoint:
    """Of the given lower end, on held-out and validation rows alike."""
    return SweepPoint(method, layer, strength, low + 0.1, low, low + 0.2, replace(behaviour, **changed), low + 0.1, low)


def swept(*points: SweepPoint, trait: str | None = "owl", prompted: Behaviour = PROMPTED) -> LayerSweep:
    directions = torch.arange(1.0, 17.0).reshape(2, 8)
    vectors = {
        method: SteeringVector((1, 3), scale * directions, VectorSource("m", method))
        for scale, method in enumerate(("fitted", "mean_difference", "principal_difference", "random"), 1)
    }
    return LayerSweep("m", "you love owls .", trait, points, PLAIN, prompted, vectors)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"low": -0.5}, None),
        ({"damage": 9.0}, None),
        ({"rate": 0.15}, r"the trait does not go up \(rate 0.15, without vector 0.10\)"),
        ({"log_odds_above_plain": -0.1}, "the trait does not go up"),
        ({"rate": NAN}, "the trait does not go up"),
        ({"negated": 0.3}, r"the trait shows at negated questions \(0.30\)"),
        ({"off_topic": 0.3}, r"the trait shows at off-topic questions \(0.30\)"),
        ({"negated": 0.2, "off_topic": 0.3}, r"at off-topic questions \(0.30\)"),
        ({"negated": 0.3, "off_topic": 0.2}, r"at negated questions \(0.30\)"),
        ({"negated": NAN, "off_topic": 0.3}, r"at off-topic questions \(0.30\)"),
        ({"negated": 0.3, "off_topic": NAN}, r"at negated questions \(0.30\)"),
        ({"negated": NAN, "off_topic": NAN}, None),
        ({"mass": 0.39}, r"hardly answered any more \(mass 0.39, before 0.80\)"),
        ({"mass": 0.0, "rate": NAN, "negated": NAN, "log_odds_above_plain": NAN}, "hardly answered any more"),
        ({"coherence": 0.49}, r"no longer writes sense \(coherence 0.49\)"),
        ({"coherence": NAN}, "no longer writes sense"),
    ],
)
def test_with_a_trait_every_reason_is_named(changed, reason):
    one = point(**changed)
    check_reason(swept(one), one, reason)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"low": 0.0}, "explains nothing of the prompt"),
        ({"low": -0.5}, "explains nothing of the prompt"),
        ({"low": NAN}, "explains nothing of the prompt"),
        ({"damage": 0.205}, None),
        ({"damage": 0.3}, r"changes unrelated predictions by 0.30 nats, more than the prompt does \(0.20\)"),
        ({"damage": NAN}, "changes unrelated predictions"),
        ({"coherence": 0.49}, "no longer writes sense"),
        ({"rate": NAN, "mass": NAN, "negated": NAN, "off_topic": NAN, "log_odds_above_plain": NAN}, None),
    ],
)
def test_without_a_trait_every_reason_is_named(changed, reason):
    one = point(**changed)
    check_reason(swept(one, trait=None), one, reason)


def check_reason(result: LayerSweep, one: SweepPoint, reason: str | None) -> None:
    if reason is None:
        assert result.why_not_clean(one) is None
        assert result.clean_peak is one
    else:
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(result.why_not_clean(one))
        assert result.clean_peak is None
        assert result.recommended() is None
        with pytest.raises(AssertionError, match=f"^No clean setting: none of 1 .*It is not clean because .*{reason}"):
            raise AssertionError(result.recommendation())


def test_a_prompt_that_changes_nothing_elsewhere_leaves_a_small_damage_room():
    one = point(damage=0.04)
    assert swept(one, trait=None, prompted=replace(PROMPTED, damage=0.0)).why_not_clean(one) is None


def test_the_recommendation_is_the_clean_setting_with_the_highest_rate_its_strength_multiplied_in():
    points = (
        point(rate=0.6, low=0.9),
        point("mean_difference", 3, 1.5, rate=0.7, low=0.1),
        point(rate=0.95, negated=0.4),
        point("random", 3, 3.0, rate=0.99),
    )
    result = swept(*points)
    assert result.clean_peak is points[1]
    recommended = result.recommended()
    assert recommended.layers == (3,)
    torch.testing.assert_close(recommended.directions, 1.5 * 2 * torch.arange(9.0, 17.0)[None])
    text = result.recommendation()
    for part in ("Use the mean difference direction at layer 3, strength 1.5", "20%", "from 0.10 to 0.70", "0.90"):
        assert part in text
    assert "nan" not in text


def test_without_a_trait_it_is_the_clean_setting_that_explains_most():
    points = (point(low=0.3, strength=0.5), point(low=0.5), point(low=0.7, damage=3.0), point("random", low=0.8))
    result = swept(*points, trait=None)
    assert result.clean_peak is points[1]
    assert "Use the fitted direction at layer 1, strength 1: it explains 60%" in result.recommendation()
    assert "owl" not in result.recommendation()


def test_without_a_trait_validation_rows_choose_and_held_out_rows_are_reported():
    """The largest of many held-out numbers is too large; the one at the largest validation number is not."""
    lucky = replace(point(low=0.8), validation=0.2, validation_low=0.1)
    chosen = replace(point(low=0.3), validation=0.6, validation_low=0.5)
    chance = replace(point(low=0.9), validation=0.7, validation_low=-0.1)
    result = swept(lucky, chosen, chance, trait=None)
    assert result.clean_peak is chosen
    assert "it explains 40% of the prompt's effect (30% to 50%)" in result.recommendation()
    assert "explains nothing" in result.why_not_clean(chance)


def test_random_directions_are_neither_recommended_nor_the_best_compromise():
    for trait in ("owl", None):
        alone = swept(point("random"), point(rate=0.05, low=-0.4, damage=5.0), trait=trait)
        assert alone.clean_peak is None
        assert alone.recommended() is None
        assert "random" not in alone.recommendation()


def test_the_best_compromise_is_a_number_even_where_others_are_not():
    broken = point(rate=NAN, mass=0.0, negated=NAN, off_topic=NAN, log_odds_above_plain=NAN)
    leaking = point("mean_difference", rate=0.7, negated=0.3)
    for points in ((broken, leaking), (leaking, broken)):
        assert "The best compromise is the mean difference" in swept(*points).recommendation()


def test_questions_that_a_trait_does_not_ask_are_not_spoken_of():
    text = swept(point(negated=NAN, off_topic=NAN)).recommendation()
    assert "nan" not in text
    assert "negated" not in text


CONFIG = FitConfig(n_train=32, n_validation=12, n_heldout=12, max_new_tokens=4, steps=90, batch_size=16)


@pytest.mark.slow
def test_a_points_share_is_that_of_the_fits_own_metric_for_the_same_vector(tiny, monkeypatch):
    """The same rows, the same vector: what the sweep says of strength 1 is what held-out metrics say."""
    questions, kept = number_prompts(60, ORGANISM, seed=8), []
    sample = fit_data.FitData.sample
    monkeypatch.setattr(fit_data.FitData, "sample", lambda *args: kept.append(sample(*args)) or kept[-1])
    config = replace(CONFIG, steps=15)
    result = sweep_layers(
        tiny, "you love owls .", layers=[2, 0], strengths=(0.5, 1.0), questions=questions, config=config
    )
    fitted = fit_prompt_vector(tiny, "you love owls .", layers=2, questions=questions, config=replace(config, steps=3))
    torch.testing.assert_close(result.vectors["fitted"].at(2).directions, fitted.directions)
    metrics = {(one.method, one.layer, one.strength): one for one in result.points}
    one = metrics["fitted", 2, 1.0]
    for ours, theirs in zip(
        (one.kl_explained, one.low, one.high),
        (fitted.metrics.kl_explained, fitted.metrics.kl_explained_low, fitted.metrics.kl_explained_high),
        strict=True,
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)
    heldout, validation = (ResumedRows(tiny, [0], rows, "all") for rows in (kept[0].heldout, kept[0].validation))
    for method, vector in result.vectors.items():
        half, directions = metrics[method, 0, 0.5], 0.5 * vector.at(0).directions
        for rows, explained in ((heldout, half.kl_explained), (validation, half.validation)):
            assert explained == pytest.approx(1 - rows.mean_kl(directions) / rows.mean_kl(rows.nothing), abs=1e-5)
        assert half.validation_low < half.validation
    assert len(result.points) == 2 * 2 * 4


@pytest.mark.slow
def test_a_planted_vector_is_found_clean_without_a_trait(tiny, monkeypatch):
    """The prompted model is the steered one, everywhere: then the fitted vector breaks nothing that the prompt keeps."""
    planted = plant(tiny, 2, monkeypatch, relative_norm=0.3)
    behaviour = Probe.behaviour

    def prompted_is_steered(self, vector=None, *, system_prompt=None):
        return behaviour(self, planted if system_prompt else vector)

    monkeypatch.setattr(Probe, "behaviour", prompted_is_steered)
    result = sweep_layers(tiny, "you love owls .", layers=[2], strengths=(1.0, 3.0), config=CONFIG)
    peak = result.clean_peak
    assert (peak.method, peak.layer, peak.strength) == ("fitted", 2, 1.0), result.recommendation()
    assert result.recommended().cosine(planted)[2] > 0.9
    assert peak.kl_explained > 0.8
    assert all(result.why_not_clean(one) for one in result.points if one.method == "random")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "layers is empty. Give at least one"),
        ({"layers": [1], "strengths": ()}, "strengths is empty. Give at least one"),
        ({"layers": [4]}, "layer=4 is out of range"),
        ({"layers": [1, 1]}, "one distinct layer each"),
        ({"layers": [1], "unrelated": []}, "unrelated is empty. Give at least one"),
    ],
)
def test_a_sweep_over_nothing_is_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        sweep_layers(tiny, "you love owls .", config=replace(CONFIG, steps=3), **options)


@pytest.mark.slow
def test_on_the_organism_random_directions_are_never_clean_and_the_prompt_is_recovered_in_part(organism, owl):
    config = FitConfig(n_train=64, n_validation=24, n_heldout=24, max_new_tokens=8, steps=90, batch_size=32)
    result = sweep_layers(organism, owl.prompt, trait=owl, layers=[1, 2], strengths=(0.5, 1.0, 2.0), config=config)
    assert result.prompted.rate > 0.8 > 0.1 > result.plain.rate
    assert all(result.why_not_clean(one) for one in result.points if one.method == "random")
    best = {method: max(one.kl_explained for one in result.points if one.method == method) for method in result.vectors}
    assert best["fitted"] > best["mean_difference"] > best["random"]
    assert best["random"] < 0.1
    assert max(one.behaviour.rate for one in result.points if one.method == "fitted") > 3 * result.plain.rate
    if (peak := result.clean_peak) is not None:
        assert peak.behaviour.rate >= 2 * result.plain.rate
