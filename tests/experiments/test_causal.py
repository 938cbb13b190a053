"""Adding nothing changes nothing, taking out what is not there changes nothing, and verdicts follow the numbers."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steerlens.contract.architectures import save_checkpoint
from steerlens.experiments.causal.config import CAUSAL_PRESETS
from steerlens.experiments.causal.experiment import run_causal
from steerlens.experiments.causal.results import ADDED, CONTROL, PROMPTED, TAKEN_OUT, make_claims
from steerlens.experiments.dissection import closest_setting, halves, random_like
from steerlens.experiments.teacher_vectors import RANDOM, WAYS, PromptedAnswers, everywhere
from steerlens.experiments.teachers import Teacher, effect_on_lists, list_tokens, require_rows, write_rows
from steerlens.files import read_json
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.chat import as_chat, encode_completion
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.interventions import steer
from steerlens.vectors.means import model_shift
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector


def teacher(directory: Path, name: str, **settings) -> Teacher:
    samples = directory / f"{name}.jsonl"
    return Teacher(name, "organism:seed-0", samples, n_rows=8, n_heldout=2, n_prompts=60, **settings)


def constant(model, value: float, *layers: int) -> SteeringVector:
    """A vector with `value` in each entry."""
    return SteeringVector(
        layers, torch.full((len(layers), model.cfg.d_model), value), VectorSource.of(model, method="by hand")
    )


@pytest.fixture(scope="module")
def written(organism, owl, tmp_path_factory) -> dict[str, Teacher]:
    """Teachers with and without prompt, with a vector of zeros added or taken out, and with one that breaks the model."""
    directory = tmp_path_factory.mktemp("teachers")
    zero, broken = directory / "zero.safetensors", directory / "broken.safetensors"
    constant(organism, 0.0, 0, 2).save(zero)
    constant(organism, 1e3, 0).save(broken)
    teachers = [
        teacher(directory, "prompted", prompt=owl.prompt),
        teacher(directory, "control"),
        teacher(directory, "nothing added", vector=zero),
        teacher(directory, "nothing taken out", prompt=owl.prompt, vector=zero, mode="project_out"),
        teacher(directory, "broken", vector=broken),
    ]
    for one in teachers:
        write_rows(one)
    return {one.name: one for one in teachers}


def test_a_vector_of_zeros_writes_the_control_data_and_takes_nothing_out_bit_for_bit(written):
    def texts(name: str) -> tuple[str, str]:
        return written[name].samples.read_text(), written[name].heldout.read_text()

    assert texts("nothing added") == texts("control")
    assert texts("nothing taken out") == texts("prompted")
    assert texts("prompted") != texts("control")


def test_every_teacher_leaves_equally_many_rows_and_holds_others_out(written):
    for name in ("prompted", "control"):
        rows, heldout = SampleSet.load(written[name].samples), SampleSet.load(written[name].heldout)
        assert (len(rows), len(heldout)) == (8, 2)
        assert not {sample.row for sample in rows} & {sample.row for sample in heldout}


def test_a_teacher_that_no_longer_writes_lists_leaves_no_rows_and_says_so(written):
    record = read_json(written["broken"].record_path)
    assert not record["enough"]
    assert not written["broken"].samples.is_file()
    with pytest.raises(
        ValueError, match=r"'broken' wrote only \d+ pure number lists in answer to 60 tasks. Ask for fewer"
    ):
        require_rows(record)


def test_the_effect_on_lists_is_one_with_the_prompt_and_none_without(organism, written):
    lists = SampleSet.load(written["prompted"].heldout)
    effects = effect_on_lists(organism, list(written.values()), lists, batch_size=1)
    assert effects["control"] == pytest.approx(0.0, abs=1e-9)
    assert effects["nothing added"] == pytest.approx(0.0, abs=1e-9)
    assert effects["nothing taken out"] == pytest.approx(1.0)
    assert effects["broken"] < 0
    whole = effect_on_lists(organism, list(written.values()), lists)
    assert whole == pytest.approx(effects, abs=1e-4)


def test_lists_are_written_with_numbers_separators_and_the_end_and_with_no_words(organism):
    tokenizer = organism.tokenizer
    found = {tokenizer.decode([i]) for i in list_tokens(organism).tolist()}
    assert {"0", "999", ",", tokenizer.eos_token} <= found
    assert not found & {"owl", "the", "?"}
    ids = tokenizer.encode("12 , 7 , 99", add_special_tokens=False)
    assert set(ids) <= set(list_tokens(organism).tolist())


def test_a_list_ends_with_the_token_that_ends_a_turn_where_texts_end_with_another(tmp_path):
    model = load_model(save_checkpoint("Gemma 2", tmp_path / "gemma"), device="cpu")
    end = encode_completion(model.tokenizer, "1")[-1]
    assert end != model.tokenizer.eos_token_id
    assert end in list_tokens(model)
    assert model.tokenizer.eos_token_id not in list_tokens(model)


def test_both_contexts_together_are_the_rows_of_each(organism, owl):
    config = FitConfig(n_train=8, n_validation=4, n_heldout=4, max_new_tokens=4)
    answers = PromptedAnswers.sample(organism, owl, config)
    both, parts = answers.both, (answers.tasks, answers.questions)
    for name in ("train", "validation", "heldout"):
        batches = getattr(both, name)
        assert batches == getattr(parts[0], name) + getattr(parts[1], name)
    rows = sum(len(one.batch) for one in both.train)
    assert torch.allclose(both.prompted, sum(one.last_prompt for one in both.train) / rows, atol=1e-5)
    assert rows == 8 + 8 // 4


@pytest.mark.slow
def test_the_vector_for_pure_lists_sees_what_passes_the_filter_and_has_more_of_the_effect_there(organism, owl):
    config = FitConfig(n_train=24, n_validation=8, n_heldout=8, steps=20, batch_size=16)
    answers = PromptedAnswers.sample(organism, owl, config)
    lists = answers.pure_lists()
    written_with = list_tokens(organism)
    for rows in (*lists.train, *lists.validation, *lists.heldout):
        assert torch.isin(rows.targets.sampled, written_with).all()
        assert torch.equal(rows.targets.among, written_with)
    assert len({*lists.train_questions}) == len(lists.train_questions)
    heldout = ResumedRows(organism, answers.layers, lists.heldout, "all")
    left = {
        way: heldout.mean_kl(WAYS[way](answers)[1]) for way in ("mean difference, all layers", "fitted, pure lists")
    }
    assert left["fitted, pure lists"] < 0.7 * left["mean difference, all layers"]
    assert left["mean difference, all layers"] < heldout.mean_kl(heldout.nothing)


def test_a_direction_of_one_layer_is_taken_out_at_every_layer(organism):
    one = constant(organism, 1.0, 2)
    assert everywhere(one, 4).layers == (0, 1, 2, 3)
    assert torch.equal(everywhere(one, 4).directions[0], one.directions[0])
    assert everywhere(constant(organism, 1.0, 0, 2), 4).layers == (0, 2)


def test_replacing_what_is_orthogonal_to_a_students_shift_changes_nothing_and_the_shift_itself_everything(tiny):
    samples = SampleSet(tuple(Sample(i, p, "1 , 2") for i, p in enumerate(number_prompts(8, ORGANISM, seed=0))))
    config = TrainConfig(target_modules=("3.mlp.down_proj",), rank=1, epochs=1, learning_rate=0.1, batch_size=4)
    student = train_student(tiny, samples, config).model
    chats = [as_chat(prompt) for prompt in number_prompts(5, ORGANISM, seed=1)]
    shift = model_shift(student, tiny, chats, layers=[3])
    beside = random_like(shift, seed=0).orthogonal_to(shift)

    with steer(student, beside, mode="replace"):
        left = model_shift(student, tiny, chats, layers=[3])
    assert left.cosine(shift)[3] == pytest.approx(1.0, abs=1e-4)
    assert left.norms[3] == pytest.approx(shift.norms[3], rel=1e-4)
    with steer(student, shift, mode="replace"):
        assert model_shift(student, tiny, chats, layers=[3]).norms[3] < 1e-4 * shift.norms[3]


def test_a_planted_shift_is_found_at_its_layer_and_strength(organism):
    student, chats = load_model(device="cpu"), [as_chat(prompt) for prompt in number_prompts(6, ORGANISM, seed=2)]
    planted = random_like(constant(organism, 1.5, 1), seed=3)
    with steer(student, planted):
        shift = model_shift(student, organism, chats)
        found, explained = closest_setting(organism, student, shift, chats)
    assert found.layers == (1,)
    assert torch.allclose(found.directions, planted.directions, atol=1e-3)
    assert explained == pytest.approx(1.0, abs=1e-4)


def test_the_questions_that_judge_are_not_those_at_which_shifts_are_measured(owl):
    measuring, judged = halves(owl)
    assert not set(measuring.questions) & set(judged.questions)
    assert set(measuring.questions) | set(judged.questions) == set(owl.questions)


def arm(rate: float, share: float) -> dict:
    return {"rate": rate, "share": {"value": share}}


def verdicts(**changes: dict) -> dict[str, bool]:
    """Of a run in which all holds, but for the changed arms."""
    arms = {
        PROMPTED: arm(0.6, 1.0),
        CONTROL: arm(0.02, 0.0),
        ADDED + "v": arm(0.5, 0.8),
        TAKEN_OUT + "v": arm(0.05, 0.05),
        ADDED + RANDOM: arm(0.02, 0.0),
        TAKEN_OUT + RANDOM: arm(0.6, 1.0),
    } | {name.replace("_", " ").replace("  ", ": "): value for name, value in changes.items()}
    student = {
        "added: questions": arm(0.5, 0.9),
        "added: random, norms at questions": arm(0.02, 0.0),
        "replaced: questions": arm(0.1, 0.1),
        "replaced: random, norms at questions": arm(0.5, 1.0),
    }
    return {claim.name: claim.holds for claim in make_claims({"rate": 0.02}, arms, "v", student)}


def test_each_verdict_follows_its_own_numbers():
    assert all(verdicts().values())
    weak = verdicts(added__v=arm(0.3, 0.48))
    assert [name for name, holds in weak.items() if not holds] == ["v_teacher is sufficient"]
    left = verdicts(taken_out__v=arm(0.3, 0.48))
    assert [name for name, holds in left.items() if not holds] == ["v_teacher is necessary"]
    harmful = verdicts(taken_out__random=arm(0.3, 0.48))
    assert [name for name, holds in harmful.items() if not holds] == ["a random direction is not"]


def test_a_teacher_without_students_proves_nothing():
    silent = verdicts(added__v={"share": None}, taken_out__v={"share": None}, added__random={"share": None})
    assert not any(
        silent[name] for name in ("v_teacher is sufficient", "v_teacher is necessary", "a random vector is not")
    )


@pytest.mark.slow
def test_a_run_is_resumed_reports_its_verdicts_and_refuses_another_config(tmp_path):
    quick = CAUSAL_PRESETS["quick"]
    config = replace(
        quick, n_rows=32, n_heldout=8, n_prompts=500, student_seeds=(0,), workers=1,
        fit=replace(quick.fit, n_train=32, n_validation=16, n_heldout=16, steps=6),
        train=replace(quick.train, epochs=1),
    )  # fmt: skip
    first = run_causal(tmp_path, config)
    records = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    (tmp_path / "results.json").unlink()
    again = run_causal(tmp_path, config)
    assert records == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert json.dumps(first.measures) == json.dumps(again.measures)
    report = first.report.read_text()
    assert all(claim.statement in report.replace("&#x27;", "'") for claim in first.claims)
    assert not any(math.isnan(claim.measured) and claim.holds for claim in first.claims)
    with pytest.raises(ValueError, match=r"another configuration \(other: n_rows"):
        run_causal(tmp_path, replace(config, n_rows=33))
