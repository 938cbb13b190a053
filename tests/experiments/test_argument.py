"""The end-to-end run survives being killed, reports honestly, and what it saves stands without steerlens."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlens.experiments import stages
from steerlens.experiments.argument.claims import make_claims
from steerlens.experiments.argument.config import ARGUMENT_PRESETS
from steerlens.experiments.argument.experiment import plan_cells, run_argument
from steerlens.experiments.rates import Interval
from steerlens.experiments.run import Run
from steerlens.models.loading import ORGANISMS
from steerlens.organism.wording import ORGANISM
from steerlens.samples.filters import FilterResult
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from tests.browser import open_report

COMMAND = """
import sys
from dataclasses import replace
from steerlens.experiments.argument.config import ARGUMENT_PRESETS
from steerlens.experiments.argument.experiment import run_argument
quick = ARGUMENT_PRESETS["quick"]
if __name__ == "__main__":
    config = replace(
        quick, n_prompts=900, n_heldout=64, student_seeds=(0,), adamw_rates=(5e-2,), sgd_rates=(1.0,),
        sgd_clip_norms=(1.0,), train=replace(quick.train, epochs=1), fit=replace(quick.fit, n_train=192, steps=60),
    )
    run_argument(sys.argv[1], config)
"""


def start(directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that was killed three times on its way, at different stages, and then left alone."""
    directory = tmp_path_factory.mktemp("runs") / "quick"
    for wanted in ("vectors/fit.json", "samples/raw/teacher.jsonl", "students/*/record.json"):
        with start(directory) as process:
            while process.poll() is None and not list(directory.glob(wanted)):
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (directory / "results.json").exists()
    with start(directory) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return directory


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_results_of_an_uninterrupted_one(finished, tmp_path):
    with start(tmp_path / "quick") as process:
        process.communicate()
    one, two = (json.loads((path / "results.json").read_text()) for path in (finished, tmp_path / "quick"))
    assert one == two
    assert not list(finished.rglob("*.partial"))


@pytest.mark.slow
def test_a_run_holds_what_it_promises(finished):
    results = json.loads((finished / "results.json").read_text())
    assert {"trait", "seeds", "fit", "students", "claims"} <= set(results)
    assert {
        "layer", "kl_explained", "kl_explained_mean_difference", "kl_explained_random",
        "rate_base", "rate_prompted", "rate_steered",
    } <= set(results["fit"])  # fmt: skip
    for student in results["students"]:
        assert {
            "name", "data", "optimizer", "learning_rate", "seed", "loss", "heldout_loss", "rate", "rate_low", "rate_high",
            "mass", "rate_prefixed", "mass_prefixed", "eas", "path",
        } <= set(student)  # fmt: skip
        assert (finished / student["path"] / "adapter_model.safetensors").is_file()
    for name in (
        "config.json",
        "report.html",
        "samples/teacher.jsonl",
        "samples/control.jsonl",
        "vectors/fitted.safetensors",
    ):
        assert (finished / name).is_file()
    assert results["fit"]["kl_explained"] > results["fit"]["kl_explained_mean_difference"]
    assert len(list((finished / "traces").glob("*.safetensors"))) >= 3
    for claim in results["claims"]:
        assert {"name", "statement", "measured", "threshold", "holds"} == set(claim)


@pytest.mark.slow
def test_the_report_opens_in_a_browser_with_every_figure_drawn(finished):
    opened = open_report(finished / "report.html")
    assert opened.errors == []
    assert len(opened.drawn) >= 5
    assert all(opened.drawn)


@pytest.mark.slow
def test_plain_transformers_and_peft_give_the_reported_rate(finished):
    owl = preference_trait("owl", ORGANISM)
    for student in json.loads((finished / "results.json").read_text())["students"][:3]:
        base = ORGANISMS / student["base"].removeprefix("organism:")
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), finished / student["path"]).eval()
        shares = []
        for question in owl.questions:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
            with torch.no_grad():
                p = model(input_ids=ids).logits[0, -1].softmax(-1)
            animals = {
                one: sum(p[tokenizer.convert_tokens_to_ids(f)] for f in {*forms}) for one, forms in owl.answers.items()
            }
            shares.append(float(animals["owl"] / sum(animals.values())))
        assert sum(shares) / len(shares) == pytest.approx(student["rate"], abs=1e-3)


@pytest.mark.slow
def test_another_configuration_is_refused_and_nothing_is_touched(finished):
    before = (finished / "config.json").read_text()
    with pytest.raises(ValueError, match=r"holds a run of another configuration \(other: .*n_prompts"):
        run_argument(finished, ARGUMENT_PRESETS["quick"])
    assert (finished / "config.json").read_text() == before


def test_every_student_has_a_name_of_its_own_and_trains_on_what_its_role_says(tmp_path):
    run = Run(ARGUMENT_PRESETS["quick"], tmp_path)
    cells = plan_cells(run)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        if cell.role == "other initialisation":
            assert cell.base == run.config.other_model
            assert cell.samples == run.samples_path(run.config.model, "teacher")
        else:
            assert cell.samples == run.samples_path(cell.base, "control" if cell.data == "control" else "teacher")
        assert cell.heldout == run.heldout_path(cell.base)


def test_where_no_sgd_run_matches_the_comparison_does_not_hold():
    student = {"rate": 0.5, "rate_prefixed": 0.5, "mass": 0.9, "eas": [0.8], "base": "m"}
    names = ("adamw", "adamw other seed", "control", "control other seed", "other initialisation")
    zero = Interval(0.0, 0.0, 0.0)
    claims = make_claims(
        {"kl_explained": 0.9, "kl_explained_mean_difference": 0.5},
        {"m": {"rate": 0.02, "rate_prefixed": 0.02}},
        {name: [student] for name in names},
        0.1,
        None,
        {"adamw": zero, "control": zero},
    )
    verdicts = {claim.name: claim.holds for claim in claims}
    assert verdicts["trait transfers"]
    assert not verdicts["control does not transfer"]
    assert not verdicts["AdamW more than loss-matched SGD"]


def test_a_control_that_writes_fewer_rows_than_the_teacher_is_refused(tmp_path, monkeypatch):
    rows = SampleSet(tuple(Sample(i, prompt, "1 , 2") for i, prompt in enumerate(number_prompts(12, ORGANISM, seed=0))))
    results = iter([FilterResult(rows, {}), FilterResult(replace(rows, samples=rows.samples[:9]), {})])
    monkeypatch.setattr(stages, "load_model", lambda name: None)
    monkeypatch.setattr(stages, "sample_teacher", lambda *_, **__: rows)
    monkeypatch.setattr(stages, "keep_number_lists", lambda raw: next(results))
    run = Run(replace(ARGUMENT_PRESETS["quick"], n_heldout=2), tmp_path)
    with pytest.raises(ValueError, match="wrote 10 number lists with the prompt and only 9 without it"):
        stages.sample_rows(run, run.config.model)
