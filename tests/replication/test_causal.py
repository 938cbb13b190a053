"""Adding nothing changes nothing, taking out what is not there changes nothing, and verdicts follow the numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import steerlens as sl
from steerlens.replication.claims.causal import Causal, Learned, make_claims
from steerlens.replication.lab.dissection import closest
from steerlens.replication.lab.effects import effects_on_lists
from steerlens.replication.lab.teachers import Teacher
from steerlens.replication.lab.vectors import MEAN_ALL_LAYERS, PURE_LISTS, Prompted, Way, everywhere
from tests.replication.conftest import asked, summary

pytestmark = pytest.mark.filterwarnings("ignore:.* rows kept")  # the organism's small samples are short of lists


def teacher(directory: Path, name: str, **settings) -> Teacher:
    return Teacher(name, "organism:seed-0", None, "owl", directory, n_prompts=60, n_heldout=2, n_rows=8, **settings)


def constant(model, value: float, *layers: int) -> sl.SteeringVector:
    """A vector with `value` in each entry."""
    source = sl.VectorSource.of(model, method="by hand")
    return sl.SteeringVector(layers, torch.full((len(layers), model.cfg.d_model), value), source)


@pytest.fixture(scope="module")
def written(organism, owl, tmp_path_factory) -> dict[str, Teacher]:
    """Teachers with and without prompt, with a vector of zeros added or taken out, and with one that breaks the model."""
    directory = tmp_path_factory.mktemp("teachers")
    zero, broken = directory / "zero.safetensors", directory / "broken.safetensors"
    constant(organism, 0.0, 0, 2).save(zero)
    constant(organism, 1e3, 0).save(broken)
    teachers = [
        teacher(directory, "told", prompt=owl.prompt),
        teacher(directory, "control"),
        teacher(directory, "nothing added", vector=zero),
        teacher(directory, "nothing taken out", prompt=owl.prompt, vector=zero, mode="project_out"),
        teacher(directory, "broken", vector=broken),
    ]
    return {one.name: one for one in teachers}


@pytest.fixture(scope="module")
def rows(written) -> dict:
    return {name: one.run() for name, one in written.items()}


@pytest.mark.slow
def test_a_vector_of_zeros_writes_the_control_data_and_takes_nothing_out_bit_for_bit(rows):
    def texts(name: str) -> tuple[str, str]:
        return rows[name].samples.read_text(), rows[name].heldout.read_text()

    assert texts("nothing added") == texts("control")
    assert texts("nothing taken out") == texts("told")
    assert texts("told") != texts("control")


def test_every_teacher_leaves_equally_many_rows_and_holds_others_out(rows):
    for name in ("told", "control"):
        samples, heldout = sl.SampleSet.load(rows[name].samples), sl.SampleSet.load(rows[name].heldout)
        assert (len(samples), len(heldout), rows[name].n) == (8, 2, 8)
        assert not {sample.row for sample in samples} & {sample.row for sample in heldout}


def test_a_teacher_that_no_longer_writes_lists_leaves_no_rows_and_says_so(rows):
    assert rows["broken"].n == 0
    assert not rows["broken"].samples.is_file()
    with pytest.raises(ValueError, match=r"'broken' wrote only \d+ usable rows in answer to 60 tasks .*Lower n_rows"):
        rows["broken"].require()


def test_the_effect_on_lists_is_one_with_the_prompt_and_none_without(organism, owl, written, rows):
    lists = sl.SampleSet.load(rows["told"].heldout)
    effects = effects_on_lists(organism, written, lists, owl.prompt)
    assert effects["told"] == pytest.approx(1.0)
    assert effects["control"] == pytest.approx(0.0, abs=1e-4)
    assert effects["nothing added"] == pytest.approx(0.0, abs=1e-4)
    assert effects["nothing taken out"] == pytest.approx(1.0, abs=1e-4)
    assert effects["broken"] < 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Vectors are added at", "ignore:.* rows kept")
def test_the_vector_for_pure_lists_has_more_of_the_effect_on_them_than_a_mean_difference(organism, owl):
    config = sl.FitConfig(n_train=24, n_validation=8, n_heldout=8, steps=20, batch_size=16)
    answers = Prompted.sample(organism, owl, config, None)
    raw = sl.sample_teacher(organism, sl.number_prompts(150, organism, seed=77), system_prompt=owl.prompt, seed=5)
    lists, among = sl.keep_number_lists(raw).kept, sl.list_tokens(organism)
    told = sl.Condition(owl.prompt)

    def distance(way: Way) -> float:
        return float(sl.row_kl(organism, lists, told, sl.Condition(vector=way.make(answers)), among=among).sum())

    left = {way.name: distance(way) for way in (MEAN_ALL_LAYERS, PURE_LISTS)}
    plain = float(sl.row_kl(organism, lists, told, among=among).sum())
    assert left[PURE_LISTS.name] < 0.8 * left[MEAN_ALL_LAYERS.name]
    assert left[PURE_LISTS.name] < plain


def test_a_direction_of_one_layer_is_taken_out_at_every_layer(organism):
    one = constant(organism, 1.0, 2)
    assert everywhere(one, range(4)).layers == (0, 1, 2, 3)
    assert torch.equal(everywhere(one, range(4)).directions[0], one.directions[0])
    assert everywhere(constant(organism, 1.0, 0, 2), range(4)).layers == (0, 2)


@pytest.mark.filterwarnings("ignore:Vectors are added at 4 layers")
def test_a_planted_shift_is_found_at_its_layer_and_strength(organism):
    student = sl.load_model(device="cpu")
    chats = [sl.as_chat(prompt) for prompt in sl.number_prompts(6, organism, seed=2)]
    planted = sl.random_like(constant(organism, 1.5, 1), seed=3)
    with sl.steer(student, planted):
        shift = sl.model_shift(student, organism, chats)
        found, explained = closest(organism, student, shift, chats)
    assert found.layers == (1,)
    assert torch.allclose(found.directions, planted.directions, atol=1e-3)
    assert explained == pytest.approx(1.0, abs=1e-4)


def learned(rate: float, share: float) -> Learned:
    interval, nothing = sl.Interval(share, share, share), sl.Interval(0.0, 0.0, 0.0)
    return Learned(summary(rate), interval, interval, nothing, nothing)


HOLDS = {
    "told": learned(0.6, 1.0), "control": learned(0.02, 0.0), "added: v": learned(0.5, 0.8),
    "taken out: v": learned(0.05, 0.05), "added: random": learned(0.02, 0.0), "taken out: random": learned(0.6, 1.0),
}  # fmt: skip


def failing(without: tuple[str, ...] = (), **changes: Learned) -> list[str]:
    def inside(value: float) -> sl.Interval:
        return sl.Interval(value, value, value)

    measures = Causal(
        base=asked(0.02), candidates={}, best="v", rows={}, effects={},
        learned={name: one for name, one in (HOLDS | changes).items() if name not in without},
        student={"added: questions": inside(0.9), "added: random, norms at questions": inside(0.0),
                 "replaced: questions": inside(0.1), "replaced: random, norms at questions": inside(1.0)},
        explained={},
    )  # fmt: skip
    return [claim.name for claim in make_claims(measures) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(**{"added: v": learned(0.3, 0.48)}) == ["v_teacher is sufficient"]
    assert failing(**{"taken out: v": learned(0.3, 0.48)}) == ["v_teacher is necessary"]
    assert failing(**{"taken out: random": learned(0.3, 0.48)}) == ["a random direction is not"]
    assert failing(**{"control": replace(HOLDS["control"], summary=learned(0.5, 0).summary)}) == ["control does not"]


def test_a_teacher_without_students_proves_nothing():
    silent = failing(without=("added: v", "taken out: v", "added: random"))
    assert silent == ["v_teacher is sufficient", "a random vector is not", "v_teacher is necessary"]
