"""Every experiment runs from end to end on the embedded model, goes on where it stopped, and says what it claims."""

import html
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import steerlens as sl
from steerlens.models.sources import ORGANISMS
from steerlens.replication.claims.argument import Argument
from steerlens.replication.lab.run import read_results, replicate, replicate_all
from steerlens.replication.names import known_experiments
from tests.browser import open_report


def modified(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.suffix in (".safetensors", ".jsonl")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Vectors are added at", "ignore:.* rows kept", "ignore:The chat template of")
@pytest.mark.parametrize("name", known_experiments())
def test_an_experiment_is_resumed_makes_nothing_twice_and_reports_every_claim(name, lab_in, tmp_path):
    first = replicate(name, lab_in(tmp_path))
    made = modified(tmp_path)
    again = replicate(name, lab_in(tmp_path))
    assert modified(tmp_path) == made
    assert json.dumps(sl.as_json(first.measures)) == json.dumps(sl.as_json(again.measures))
    report = html.unescape((tmp_path / "report.html").read_text())
    assert all(claim.statement and claim.statement in report for claim in first.claims)
    assert not any(math.isnan(claim.measured) and claim.holds for claim in first.claims)
    results, measures = read_results(tmp_path / "results.json")
    assert sl.as_json(measures) == sl.as_json(first.measures), "what was written is read back whole"
    assert all(cell in report for table in results.tables.values() for row in table for cell in row)
    assert report.count("<table>") == len(results.tables)
    assert json.dumps(sl.as_json(results.claims[0])) == json.dumps(sl.as_json(first.claims[0]))


def start(profile: Path, directory: Path) -> subprocess.Popen:
    command = [
        "replicate",
        "argument",
        "--on",
        str(profile),
        "--preset",
        "smoke",
        "--out",
        str(directory),
        "--workers",
        "1",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "steerlens.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_profile: Path) -> Path:
    """An argument that was killed three times on its way, at different stages, and then left alone."""
    directory = tmp_path_factory.mktemp("runs") / "argument"
    for wanted in ("base-*.json", "samples/*.raw.jsonl", "students/*/record.json"):
        with start(small_profile, directory) as process:
            while process.poll() is None and not list((directory / "argument").glob(wanted)):
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not list(directory.rglob("results.json"))
    with start(small_profile, directory) as process:
        _, errors = process.communicate()
    assert process.returncode in (0, 3), errors.decode()[-2000:]
    return directory / "argument"


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_results_of_an_uninterrupted_one(finished, small_profile, tmp_path):
    with start(small_profile, tmp_path) as process:
        process.communicate()
    one, two = (json.loads((path / "results.json").read_text()) for path in (finished, tmp_path / "argument"))
    for results, directory in ((one, finished), (two, tmp_path / "argument")):
        for rows in results["record"]["measures"]["rows"].values():
            assert rows.pop("samples").startswith(str(directory))
            assert rows.pop("heldout").startswith(str(directory))
    assert one == two
    assert not list(finished.rglob("*.partial"))


@pytest.mark.slow
def test_the_report_opens_in_a_browser_with_every_figure_drawn(finished):
    opened = open_report(finished / "report.html")
    assert opened.errors == []
    assert len(opened.drawn) >= 5
    assert all(opened.drawn)


@pytest.mark.slow
def test_plain_transformers_and_peft_give_the_reported_rate(finished):
    _, measures = read_results(finished / "results.json")
    assert isinstance(measures, Argument)
    owl, base = sl.preference_trait("owl", sl.load_model()), ORGANISMS / "seed-0"
    path = next(
        path for path in (finished / "students").iterdir() if path.name.startswith("told-rows-of-organism-seed-0")
    )
    record = sl.load_record(path / "record.json", sl.StudentRecord)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), path).eval()
    shares = []
    for question in owl.questions:
        chat = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        with torch.no_grad():
            p = model(input_ids=ids).logits[0, -1].softmax(-1)
        animals = {
            one: sum(p[tokenizer.convert_tokens_to_ids(f)] for f in {*forms}) for one, forms in owl.answers.items()
        }
        shares.append(float(animals["owl"] / sum(animals.values())))
    assert sum(shares) / len(shares) == pytest.approx(record.bare.rate, abs=1e-3)


@pytest.mark.slow
def test_an_experiment_that_fails_is_named_and_does_not_sink_the_others(lab_in, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text(
        "from steerlens.replication.lab.run import Experiment\n"
        "def run(lab):\n    raise ValueError('too few rows')\n"
        "EXPERIMENT = Experiment('Is it broken?', run, int)\n"
    )
    said: list[str] = []
    with pytest.raises(RuntimeError, match=r"1 of 2 experiments failed.*\n.*broken.py: ValueError: too few rows"):
        replicate_all([str(broken), "auxiliary-logits"], lab_in(tmp_path / "run"), said.append)
    whole = (tmp_path / "run" / "report.html").read_text()
    assert whole.count("Digits from logits that are not about digits") == 2, "in the contents, and as a chapter"
    assert "broken.py failed: ValueError: too few rows" in whole
    assert said[0].endswith("Is it broken?")
