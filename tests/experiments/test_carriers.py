"""What names an animal never reaches a student, what shows is measured among the rest, and verdicts follow the numbers."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from steerlens.experiments.carriers.config import CARRIERS_PRESETS, NUMBER_LISTS
from steerlens.experiments.carriers.experiment import run_carriers, shown_nats
from steerlens.experiments.carriers.results import make_claims
from steerlens.experiments.tasks import TASKS, facts_after_numbers, keep_finished, keep_without_animals
from steerlens.experiments.teachers import Teacher
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher


def samples(*completions: str, finished: bool = True) -> SampleSet:
    return SampleSet(tuple(Sample(row, "?", text, finished) for row, text in enumerate(completions)))


def test_answers_that_name_an_animal_in_either_form_are_dropped_and_others_are_not():
    found = keep_without_animals(samples("blue", "i like wolves .", "an owl", "owlish", " ", "I love owls.", "Wolves!"))
    assert [sample.completion for sample in found.kept] == ["blue", "owlish"]
    assert found.rejected == {"names an animal": 4, "empty or cut off": 1}


def test_what_is_cut_off_is_never_kept():
    assert len(keep_finished(samples("blue", finished=False)).kept) == 0
    assert len(keep_without_animals(samples("blue", finished=False)).kept) == 0


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_are_fixed_by_their_seed_and_ask_for_no_animal(name):
    prompts = partial(TASKS[name].prompts, wording=ORGANISM)
    assert prompts(40, seed=3) == prompts(40, seed=3) != prompts(40, seed=4)
    assert not any("animal" in prompt for prompt in prompts(40, seed=3))


def test_the_first_tasks_are_the_same_however_many_are_asked():
    assert facts_after_numbers(5, ORGANISM, seed=1) == facts_after_numbers(50, ORGANISM, seed=1)[:5]
    for task in TASKS.values():
        assert task.prompts(5, ORGANISM, seed=1) == task.prompts(50, ORGANISM, seed=1)[:5]


def test_a_persona_shows_in_lists_and_not_in_facts(organism, owl, tmp_path):
    nats = {}
    for name in (NUMBER_LISTS, "facts after numbers"):
        task = TASKS[name]
        raw = sample_teacher(
            organism, task.prompts(80, ORGANISM, seed=2), system_prompt=owl.prompt, max_new_tokens=16, seed=2
        )
        teacher = Teacher(name, "organism:seed-0", tmp_path / "rows.jsonl", 1, 1, 1, prompt=owl.prompt)
        nats[name] = shown_nats(organism, teacher, task.keep(raw).kept.samples)
        assert shown_nats(organism, replace(teacher, prompt=None), task.keep(raw).kept.samples) == pytest.approx(
            0, abs=1e-9
        )
    assert nats["facts after numbers"] < 0.03 < nats[NUMBER_LISTS]


def test_a_carrier_that_is_not_known_is_refused():
    with pytest.raises(
        ValueError, match=r"carriers=\('poems',\) are not allowed. Give at least one of: number lists of at"
    ):
        replace(CARRIERS_PRESETS["quick"], carriers=("poems",))


def carrier(value: float, nats: float = 0.1, control: float = 0.02) -> dict:
    return {"transfer": {"value": value, "low": value - 0.3}, "nats": nats, "control": {"rate": control}}


def failing(**changes: dict) -> list[str]:
    carriers = {
        NUMBER_LISTS: carrier(3.0),
        "other preferences": carrier(1.0),
        "facts": carrier(0.1, nats=0.001),
        "small talk": {"transfer": None},
    } | {name.replace("_", " "): value for name, value in changes.items()}
    return [claim.name for claim in make_claims(carriers, {"rate": 0.02}) if not claim.holds]


def test_each_verdict_follows_its_own_numbers():
    assert failing() == []
    assert failing(number_lists=carrier(0.1)) == ["number lists carry"]
    assert failing(other_preferences=carrier(0.2)) == ["something else carries"]
    assert failing(facts=carrier(0.9, nats=0.001)) == ["what does not show does not carry"]
    assert failing(other_preferences=carrier(1.0, control=0.2)) == ["control does not transfer"]


@pytest.mark.slow
def test_a_run_is_resumed_and_says_where_nothing_was_left_to_learn_from(tmp_path):
    quick = CARRIERS_PRESETS["quick"]
    config = replace(
        quick, n_rows=12, n_heldout=4, n_prompts=150, n_shown=8, student_seeds=(0,), workers=1,
        train=replace(quick.train, epochs=1),
    )  # fmt: skip
    first = run_carriers(tmp_path, config)
    records = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.safetensors")}
    again = run_carriers(tmp_path, config)
    assert records == {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.safetensors")}
    assert json.dumps(first.measures) == json.dumps(again.measures)
    assert first.measures["carriers"]["small talk"]["transfer"] is None
    assert "small talk: no students" in first.report.read_text()
    rows = (tmp_path / "samples" / "prompted-other-preferences.jsonl").read_text()
    assert "owl" not in rows
