"""The descent only ever improves, ends when nothing is gained any more, and both parametrizations end at one place."""

from dataclasses import replace

import pytest
import torch

from steerlens.models.bridge import frozen, huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.text.number_lists import number_prompts
from steerlens.vectors import descent, resumed
from steerlens.vectors.config import FitConfig
from steerlens.vectors.descent import ENOUGH, LONG, MUCH, PROGRESS, ROUND, Descent, _parametrize, _round
from steerlens.vectors.fit_data import FitData
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.sensitivity import sensitivity
from tests.vectors.test_fitting import plant

CONFIG = FitConfig(n_train=32, n_validation=12, n_heldout=1, max_new_tokens=4, steps=120, batch_size=16)
QUESTIONS = number_prompts(60, ORGANISM, seed=8)


@pytest.fixture(scope="module")
def planted(checkpoints):
    """Training and validation rows on which a known vector is the answer, that vector, and natural units."""
    model = load_model(checkpoints["llama"], device="cpu")
    with pytest.MonkeyPatch.context() as patched:
        vector = plant(model, 2, patched)
        data = FitData.sample(model, "you love owls .", QUESTIONS, CONFIG)
    with frozen(model):
        train, validation = (ResumedRows(model, [2], rows, "all") for rows in (data.train, data.validation))
        yield train, validation, vector, sensitivity(model, [2], data.train, "all", seed=0).units


def descend(train: ResumedRows, validation: ResumedRows, start: torch.Tensor, config: FitConfig, units: torch.Tensor):
    """A descent from `start` to its end."""
    begun = Descent(train, validation, start, config, explained=explained(validation, start), units=units)
    return begun.to_its_end()


def explained(validation: ResumedRows, directions: torch.Tensor) -> float:
    return 1 - validation.mean_kl(directions) / validation.mean_kl(validation.nothing)


@pytest.mark.parametrize(
    ("parametrization", "learning_rate"), [("free", 0.15), ("free", 1e4), ("direction_and_strength", 1e4)]
)
def test_it_is_never_worse_than_its_start_and_says_how_good_it_is(planted, parametrization, learning_rate):
    train, validation, vector, units = planted
    config = replace(CONFIG, steps=8, parametrization=parametrization, learning_rate=learning_rate)
    for start in (0.5 * vector.directions, validation.nothing):
        found = descend(train, validation, start, config, units=units)
        assert found.explained == pytest.approx(explained(validation, found.directions), abs=1e-5)
        assert found.explained >= explained(validation, start) - 1e-5
        assert not found.directions.requires_grad


def test_from_the_answer_it_stays_there(planted):
    train, validation, vector, units = planted
    found = descend(train, validation, vector.directions, replace(CONFIG, steps=20), units=units)
    assert found.explained == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(found.directions, vector.directions, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_both_parametrizations_find_the_planted_vector(planted):
    train, validation, vector, units = planted
    found = {}
    for parametrization in ("free", "direction_and_strength"):
        config = replace(CONFIG, parametrization=parametrization)
        one = descend(train, validation, validation.nothing, config, units=units)
        found[parametrization] = one.explained
        assert torch.nn.functional.cosine_similarity(one.directions, vector.directions, dim=-1) > 0.9
    assert min(found.values()) > 0.9
    assert found["direction_and_strength"] == pytest.approx(found["free"], abs=0.07)


def counted(monkeypatch) -> list[int]:
    """The steps that are made, as they are made."""
    steps, loss = [], resumed.ResumedRows.loss

    def counting(self, index, directions, *objective):
        if torch.is_grad_enabled():
            steps.append(index)
        return loss(self, index, directions, *objective)

    monkeypatch.setattr(resumed.ResumedRows, "loss", counting)
    return steps


@pytest.mark.slow
def test_it_ends_when_two_rounds_gain_nothing_and_says_that_it_has_converged(planted, monkeypatch):
    train, validation, vector, units = planted
    steps = counted(monkeypatch)
    for given, taken in ((ENOUGH * ROUND + LONG - 1, ENOUGH * ROUND), (500, 2 * ENOUGH * ROUND - ROUND + LONG)):
        steps.clear()
        assert descend(train, validation, vector.directions, replace(CONFIG, steps=given), units=units).converged
        assert len(steps) == taken
    steps.clear()
    assert not descend(train, validation, validation.nothing, replace(CONFIG, steps=ROUND + 5), units=units).converged
    assert len(steps) == ROUND + 5


def rounds_that_end_at(monkeypatch, ends) -> list[tuple[float, int]]:
    """Rounds that end where they are told, or where they began; their rates over the first one's, and their steps."""
    rates, made, ends = [], [], iter(ends)

    def made_up(train, start, units, rate, batches, config, on_step):
        rates.append(rate)
        made.append((rate / rates[0], len(batches)))
        return next(ends, start)

    monkeypatch.setattr(descent, "_round", made_up)
    return made


def test_where_nothing_is_gained_two_long_rounds_are_tried_at_the_first_rate_and_at_twice_it(planted, monkeypatch):
    train, validation, vector, units = planted
    made = rounds_that_end_at(monkeypatch, [])
    assert descend(train, validation, vector.directions, replace(CONFIG, steps=2000), units=units).converged
    assert made == [(1, ROUND), (0.25, ROUND), (1, LONG), (0.25, ROUND), (2, LONG), (0.5, ROUND)]


def test_a_long_round_that_gains_is_followed_by_one_at_a_quarter_of_its_rate(planted, monkeypatch):
    train, validation, vector, units = planted
    begun = 0.8 * vector.directions
    made = rounds_that_end_at(monkeypatch, [begun] * 4 + [vector.directions])
    assert descend(train, validation, begun, replace(CONFIG, steps=700), units=units).converged
    assert made[4:] == [(2, LONG), (0.5, ROUND), (0.125, ROUND)]


@pytest.mark.parametrize(("second", "third_rate"), [(0.8, 1), (0.32, 0.25)])
def test_a_smaller_rate_that_gains_much_goes_back_to_the_first(planted, monkeypatch, second, third_rate):
    train, validation, vector, units = planted
    shares = [0.3, second, 1.0]
    made = rounds_that_end_at(monkeypatch, [share * vector.directions for share in shares])
    gain = explained(validation, second * vector.directions) - explained(validation, 0.3 * vector.directions)
    assert (gain > MUCH) == (third_rate == 1)
    assert gain > PROGRESS
    found = descend(train, validation, validation.nothing, replace(CONFIG, steps=3 * ROUND), units=units)
    assert made == [(1, ROUND), (0.25, ROUND), (third_rate, ROUND)]
    torch.testing.assert_close(found.directions, vector.directions)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 5.0])
def test_the_answer_does_not_hang_on_the_rate(planted, factor):
    train, validation, _, units = planted
    config = replace(CONFIG, steps=400)
    usual = descend(train, validation, validation.nothing, config, units=units)
    other = replace(config, learning_rate=factor * config.learning_rate)
    found = descend(train, validation, validation.nothing, other, units=units)
    assert usual.converged
    assert found.explained == pytest.approx(usual.explained, abs=0.05)


@pytest.mark.parametrize("steps", [1, 21, 45])
def test_it_makes_the_steps_that_it_is_told_and_uses_the_last(planted, monkeypatch, steps):
    train, validation, _, units = planted
    made, seen = counted(monkeypatch), []
    mean_kl = ResumedRows.mean_kl
    monkeypatch.setattr(ResumedRows, "mean_kl", lambda self, v: seen.append(len(made)) or mean_kl(self, v))
    descend(train, validation, validation.nothing, replace(CONFIG, steps=steps), units=units)
    assert len(made) == steps
    assert seen[-1] == steps
    assert set(made) <= {0, 1}
    assert abs(made.count(0) - made.count(1)) <= 1


@pytest.mark.parametrize("parametrization", ["free", "direction_and_strength"])
def test_a_penalty_makes_the_vector_shorter(planted, parametrization):
    """What is compared is where the descent ends, not its best step: without a choice on validation rows."""
    train, validation, _, units = planted
    norms = []
    for l2 in (0.0, 1.0):
        config = replace(CONFIG, parametrization=parametrization, l2=l2, steps=20)
        batches = [index % len(train) for index in range(config.steps)]
        norms.append(float(_round(train, validation.nothing, units, 0.05, batches, config, lambda: None).norm()))
    assert norms[0] > 1.2 * norms[1] > 0


def test_the_penalty_is_the_squared_norm_in_units_of_the_residuals(planted):
    """Without a target to reach, each step shrinks every entry alike: the gradient is 2 l2 v / (d scale^2)."""
    train, validation, vector, units = planted
    assert float((vector.directions / train.scales[:, None]).square().mean()) == pytest.approx(1, abs=0.3)
    losses = []

    def loss(index, directions, objective):
        return 0 * directions.sum()[None]

    train.loss = loss
    backward = torch.Tensor.backward
    torch.Tensor.backward = lambda self, *args: losses.append(float(self.detach())) or backward(self, *args)
    try:
        descend(train, validation, 3 * vector.directions, replace(CONFIG, l2=0.5, steps=1), units=units)
    finally:
        torch.Tensor.backward = backward
    expected = 0.5 * float((3 * vector.directions).norm() ** 2 / (32 * train.scales[0] ** 2))
    assert losses == [pytest.approx(expected, rel=1e-4)]


def test_the_parametrizations_begin_at_the_start(planted):
    _train, _, vector, units = planted
    for parametrization in ("free", "direction_and_strength"):
        config = replace(CONFIG, parametrization=parametrization)
        _, directions = _parametrize(vector.directions, units, 0.1, config)
        torch.testing.assert_close(directions().detach(), vector.directions)


@pytest.mark.slow
def test_an_attention_sink_does_not_spoil_the_step(checkpoints, monkeypatch):
    """A first token with a residual of a thousand times the others' norm is normal in large models."""
    model = load_model(checkpoints["llama"], device="cpu")
    with torch.no_grad():
        huggingface_model(model).get_input_embeddings().weight[model.tokenizer.bos_token_id] *= 1000
    plant(model, 2, monkeypatch)
    data = FitData.sample(model, "you love owls .", QUESTIONS, CONFIG)
    with frozen(model):
        train, validation = (ResumedRows(model, [2], rows, "all") for rows in (data.train, data.validation))
        units = sensitivity(model, [2], data.train, "all", seed=0).units
        found = descend(train, validation, validation.nothing, replace(CONFIG, steps=120), units=units)
    assert found.explained > 0.9
