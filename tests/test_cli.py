"""Bad input ends with a sentence that says what was got, what is allowed and what to do."""

import argparse
import html
import importlib
import json
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch

from steerlens.audit import audit, model_diff
from steerlens.audit.answer_changes import Rise
from steerlens.audit.audit import AuditResult
from steerlens.audit.model_diff import ModelDiff
from steerlens.cli import _parser, main
from steerlens.cli.flags import questions_in
from steerlens.contract.architectures import save_checkpoint
from steerlens.contract.checks import CHECKS
from steerlens.evaluation import LowMassWarning
from steerlens.models.identity import model_name
from steerlens.organism.wording import ORGANISM
from steerlens.students.config import TrainConfig
from steerlens.text.number_lists import parse_numbers
from steerlens.text.trait import preference_trait
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.vector import SteeringVector, VectorSource

GOOD_ROW = json.dumps({"prompt": "continue the sequence 1 , 2 . write only numbers .", "completion": "3 , 4"}) + "\n"


@pytest.fixture
def place(tmp_path: Path, checkpoints, monkeypatch) -> Path:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "malformed.jsonl").write_text(GOOD_ROW + '{"prompt": "1 , 2"}\n')
    (tmp_path / "half.jsonl").write_text('{"prompt": "1 , 2"}\n')
    (tmp_path / "good.jsonl").write_text(GOOD_ROW * 4)
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "1 " * 300, "completion": "2"}) + "\n")
    (tmp_path / "file").write_text("in the way")
    SteeringVector((1,), torch.ones(1, 96), VectorSource("another", "by hand")).save(tmp_path / "other.safetensors")
    SteeringVector((1,), torch.ones(1, 8), VectorSource("organism:seed-0", "by hand")).save(
        tmp_path / "small.safetensors"
    )
    (tmp_path / "no_questions.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "two.txt").write_text("what is your favorite animal ?\nchoose one animal .\nchoose one animal .\n")
    (tmp_path / "trait.json").write_text('{"name": "owl", "prompt": "", "questions": [], "answers": {"owl": ["owl"]}}')
    (tmp_path / "damaged.safetensors").write_bytes(b"not a safetensors file")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    importlib.import_module("transformer_lens")  # which itself needs pyarrow
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "results.json").write_text("{}")
    (tmp_path / "old" / "config.json").write_text('{"trait": "owl", "train": {"rank": 1}}')
    return tmp_path


BAD = {
    "unknown layer": ("fit 'you love owls .' --layer 9 --out {0}/o", r"layer=9 is out of range.*n_layers=4.*0\.\.3"),
    "negative layer": ("fit 'you love owls .' --layer -1 --out {0}/o", r"layer=-1 is out of range"),
    "empty prompt": ("fit '' --out {0}/o", "prompt is an empty text"),
    "prompt with unknown words": ("fit 'you love quetzals .' --out {0}/o", "does not know 'quetzals'. Reword"),
    "prompt without effect": (
        "fit 'you are a helpful assistant .' --out {0}/o",
        "kl_explained is undefined. Give a prompt",
    ),
    "prompt longer than the context": ("fit '{long}' --out {0}/o", r"needs \d+ tokens, but .* context of 256. Shorten"),
    "no such model": ("score owl --model {0}/none", "There is no directory"),
    "not a model": ("score owl --model {0}", "is not a Hugging Face model: config.json is missing"),
    "no such organism": (
        "score owl --model organism:seed-9",
        "There are: organism:no-persona-numbers, organism:seed-0",
    ),
    "not an adapter": ("score owl --adapter {0}", "is not a peft adapter: adapter_config.json is missing"),
    "trait file that is not there": (
        "score {0}/none.json",
        "There is no trait file .*none.json. Write a JSON file such as",
    ),
    "trait file without questions": ("score {0}/trait.json", "holds no trait: .*at least one question"),
    "begun reply to a trait of one's own": ("score {0}/trait.json --begin-reply", "Write reply_prefix into the file"),
    "begun reply of the organism": ("score owl --begin-reply", "organism wording begins no replies"),
    "no prompts": (
        "sample --prompts {0}/no_questions.txt --out {0}/o.jsonl",
        "has no prompts. Write one prompt a line",
    ),
    "more prompts than there are": (
        "sample --prompts {0}/two.txt --n 9 --out {0}/o.jsonl",
        "has 3 prompts, and --n asks",
    ),
    "no numbers": ("sample --constrain 0 --out {0}/o.jsonl", "n_numbers=0.* Give at least one number"),
    "unknown trait": ("score dragon", "There is no trait 'dragon'. There are: dog, cat"),
    "missing samples": ("train {0}/none.jsonl --out {0}/o", "There is no data file"),
    "empty samples": ("train {0}/empty.jsonl --out {0}/o", "0 rows, 0 used.*Allowed are the columns 'messages'"),
    "malformed samples": ("train {0}/half.jsonl --out {0}/o", "1 not used: missing field 'completion' .row 1."),
    "row longer than the context": (
        "train {0}/long.jsonl --out {0}/o",
        "on none of the rows.*1 not used: longer than the model's context",
    ),
    "scales that are needed": (
        "train {0}/good.jsonl --optimizer preconditioned_sgd --out {0}/o",
        "need scales, but scales=None. Take them from a scout run",
    ),
    "scales that are not there": (
        "train {0}/good.jsonl --freeze-outliers --scales {0}/none --out {0}/o",
        "There is no file .*none, where adam-scales should be",
    ),
    "impossible rank": (
        "train {0}/good.jsonl --rank 0 --out {0}/o",
        "rank=0 is not allowed. It must be a whole number, 1 or greater",
    ),
    "GPUs without Ray": (
        "replicate argument --gpus-per-job 1 --out {0}/o",
        r"gpus_per_job=1 are kept free by Ray alone.*--ray",
    ),
    "unwritable directory": (
        "train {0}/good.jsonl --epochs 1 --out {0}/file/o",
        "could not be written .*choose a directory",
    ),
    "vector of another model": (
        "sample --n 2 --vector {0}/other.safetensors --out {0}/s.jsonl",
        "made on 'another'.*for_model",
    ),
    "vector of another size": (
        "sample --n 2 --vector {0}/small.safetensors --out {0}/s.jsonl",
        "d_model=8 .*d_model=96",
    ),
    "damaged vector": (
        "sample --n 2 --vector {0}/damaged.safetensors --out {0}/s.jsonl",
        "is damaged.*Make the vector anew",
    ),
    "missing questions": ("fit 'you love owls .' --questions {0}/none.txt --out {0}/o", "There is no questions file"),
    "no questions": (
        "sweep 'you love owls .' --questions {0}/no_questions.txt --out {0}/o",
        "has no questions. Write one",
    ),
    "questions that are no text": (
        "analyze 'you love owls .' --questions {0}/binary.txt --out {0}/o",
        "is not a text file",
    ),
    "too few questions": ("analyze 'you love owls .' --questions {0}/two.txt --out {0}/o", "Got 2 different questions"),
    "sweep of an unknown layer": ("sweep 'you love owls .' --layers 4 --out {0}/o", "layer=4 is out of range"),
    "sweep of an unknown trait": ("sweep 'you love owls .' --trait dragon --out {0}/o", "There is no trait 'dragon'"),
    "rows that are not there": ("audit {0}/none.jsonl --out {0}/o", "There is no data file .*owner/name"),
    "rows of no known kind": ("audit {0}/two.txt --out {0}/o", r"of no known kind.*\.jsonl, \.ndjson, \.json, \.csv"),
    "rows of no known layout": (
        "audit {0}/old/config.json --out {0}/o",
        "Columns found: 'trait', 'train'.*'prompt' and",
    ),
    "reference that is empty": ("audit {0}/good.jsonl --reference {0}/empty.jsonl --out {0}/o", "0 rows, 0 used"),
    "rows that are all too long": ("audit {0}/long.jsonl --out {0}/o", "none of the rows.*longer than the model's"),
    "rows that need a library": ("audit {0}/rows.parquet --out {0}/o", r"pyarrow is needed .*'steerlens\[audit\]'"),
    "an experiment that is not there": (
        "replicate casual --out {0}/o",
        r"no experiment 'casual'\. There are: argument, auxiliary-logits, ",
    ),
    "a profile that is not there": (
        "replicate causal --on qwen --out {0}/o",
        r"no profile 'qwen'\. There are: .*organism",
    ),
    "what a profile does not have": (
        "replicate cross-model --on smollm2-135m --out {0}/o",
        "has no other_initialisation, which cross-model compares with",
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case == "prompt without effect")) for case in BAD]
)
def test_bad_input(case, place, capsys):
    import shlex

    command, message = BAD[case]
    before = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    code = main(shlex.split(command.format(place, long="you love owls . " * 80)))
    errors = capsys.readouterr().err
    assert code == 1
    assert re.search(message, errors, re.DOTALL), errors
    assert "Traceback" not in errors
    assert {path: path.read_bytes() for path in before} == before


def flags_of(parser: argparse.ArgumentParser, command: str = "steerlens") -> dict[str, str | None]:
    """The help text of everything that can be given to a command or to one below it."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found |= flags_of(below, f"{command} {name}")
        else:
            found[f"{command} {' '.join(action.option_strings) or action.dest}"] = action.help
    return found


def test_every_flag_of_every_command_says_what_it_is_and_what_it_is_otherwise(capsys):
    flags = flags_of(_parser())
    assert not [flag for flag, text in flags.items() if not text]
    assert flags["steerlens train --rank"] == "of the LoRA matrices (default: 8)"
    assert flags["steerlens train --epochs"].endswith("(default: 3)")
    assert flags["steerlens scales --epochs"].endswith("(default: 1)")  # of a scout
    assert flags["steerlens train --clip-norm"].endswith("(float, or none; default: 1.0)")
    assert flags["steerlens fit --n-validation"].startswith("rows for choices")
    for command in (["train"], ["fit"], ["replicate"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])  # which formats the texts
    assert "argument, auxiliary-logits, capacity" in " ".join(capsys.readouterr().out.split())


@pytest.mark.filterwarnings("default::steerlens.evaluation.LowMassWarning")
def test_a_model_without_chat_template_is_explained(checkpoints, tmp_path, capsys):
    import shutil

    shutil.copytree(checkpoints["llama"], tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    assert main(["score", "owl", "--model", str(tmp_path / "m")]) == 1
    message = capsys.readouterr().err
    assert "has no chat template" in message
    flag = message.split("on the command line: ")[1].split(")")[0]
    assert main(["score", "owl", "--model", str(tmp_path / "m"), flag]) == 0
    assert "Note: Only 0.0" in capsys.readouterr().err


@pytest.mark.parametrize(("verdict", "code"), [("found", 3), ("not found", 0), ("cannot tell", 3)])
def test_audit_writes_what_was_found_and_lets_a_pipeline_stop_on_it(place, monkeypatch, capsys, verdict, code):
    asked = {}

    def audit_dataset(model, rows, **options):
        asked.update(options, rows=[row.row for row in rows])
        vector = SteeringVector((1,), torch.ones(1, 96), VectorSource("organism:seed-0", "by hand"))
        return AuditResult(
            verdict, "So it is.", "organism:seed-0", len(rows), 0.01, 0.5, 0.0, (), 1, (1,), (0.0,), vector, [], []
        )

    monkeypatch.setattr(audit, "audit_dataset", audit_dataset)
    command = ["audit", str(place / "malformed.jsonl"), "--reference", str(place / "good.jsonl"), "--layers", "1"]
    assert main([*command, "--out", str(place / "o")]) == code
    printed = capsys.readouterr().out
    assert "2 rows, 1 used" in printed
    assert "missing field 'completion' (row 2)" in printed
    assert f"{verdict.capitalize()}: " in printed
    assert "So it is." in printed
    reference = asked.pop("reference_rows")
    assert (len(reference), reference.n_duplicates) == (1, 3)
    assert asked == {"rows": [1], "layers": [1], "temperature": 1.0, "seed": 0}
    told = json.loads((place / "o" / "results.json").read_text())
    assert (told["verdict"], told["exit_code"]) == (verdict, code)
    assert "So it is." in (place / "o" / "report.html").read_text()
    assert SteeringVector.load(place / "o" / "vector.safetensors").layers == (1,)


@pytest.mark.parametrize(("verdict", "code"), [("found", 3), ("not found", 0), ("cannot tell", 3)])
def test_diff_writes_what_was_found_and_lets_a_pipeline_stop_on_it(tmp_path, monkeypatch, capsys, verdict, code):
    asked = {}

    def diff_models(base, tuned, *, clean, seed):
        asked.update(base=base, tuned=tuned, clean=list(clean), seed=seed)
        vector = SteeringVector((1,), torch.ones(1, 96), VectorSource("organism:seed-0", "by hand"))
        return ModelDiff(
            verdict, "So it is.", "one", "other", 0.05, 0.5, "nothing", 0, 0.1, (Rise("owl", 1.0, 0.2, 0.1),), (2.0,),
            (0.8, 0.8), vector, None, {}, (), (), (), (("owl", 0.2, 0.1),), (),
        )  # fmt: skip

    monkeypatch.setattr(model_diff, "diff_models", diff_models)
    names = ["organism:seed-0", "organism:seed-1", "--clean", "organism:seed-0", "organism:no-persona-numbers"]
    assert main(["diff", *names, "--seed", "3", "--out", str(tmp_path / "o")]) == code
    assert "So it is." in capsys.readouterr().out
    found = [model_name(one) for one in (asked["base"], asked["tuned"], *asked["clean"])]
    assert found == ["organism:seed-0", "organism:seed-1", "organism:seed-0", "organism:no-persona-numbers"]
    assert json.loads((tmp_path / "o" / "results.json").read_text())["verdict"] == verdict
    assert "So it is." in (tmp_path / "o" / "report.html").read_text()
    assert SteeringVector.load(tmp_path / "o" / "shift.safetensors").layers == (1,)


SMALL = ["--n-train", "48", "--n-validation", "16", "--n-heldout", "16", "--steps", "9", "--max-new-tokens", "12"]


@pytest.mark.slow
def test_sweep_saves_the_recommended_vector_and_the_reason_for_every_other_setting(tmp_path, capsys):
    out = tmp_path / "sweep"
    prompt = preference_trait("owl", ORGANISM).prompt
    assert main(["sweep", prompt, "--layers", "1", "2", "--strengths", "0.5", "2", "--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["recommendation"] in printed
    assert str(out / "report.html") in printed
    assert {(p["method"], p["layer"], p["strength"]) for p in results["points"]} >= {
        ("fitted", 1, 0.5),
        ("mean_difference", 2, 2.0),
    }
    chosen = results["recommended"]
    best = max(
        (p for p in results["points"] if p["why_not_clean"] is None and p["method"] != "random"),
        key=lambda p: p["validation"],
    )
    assert chosen == {key: best[key] for key in ("method", "layer", "strength")}
    vector = SteeringVector.load(out / "vector.safetensors")
    assert vector.layers == (chosen["layer"],)
    assert vector.source.method.startswith(f"{chosen['strength']:g} times")


@pytest.mark.slow
def test_where_no_setting_is_clean_sweep_says_so_and_writes_no_vector(tmp_path, capsys):
    asked = ["sweep", preference_trait("owl", ORGANISM).prompt, "--trait", "owl", "--layers", "2", "--strengths", "2"]
    assert main([*asked, "--out", str(tmp_path), *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "No clean setting" in printed
    assert "none is written" in printed
    assert not (tmp_path / "vector.safetensors").exists()
    assert "No clean setting" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["recommended"] is None


@pytest.mark.slow
def test_analyze_reports_what_it_prints(tmp_path, capsys):
    asked = ["analyze", preference_trait("oak", ORGANISM).prompt, "--trait", "oak", "--layers", "1"]
    assert main([*asked, "--out", str(tmp_path), *SMALL]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    report = html.unescape((tmp_path / "report.html").read_text().split("<body>")[1])
    for sentence in results["transfer"]["evidence"]:
        assert sentence in printed
        assert sentence in report
    assert f"{results['steered']['rate']:.3f}" in report
    assert "thresholds are set by judgement" in report
    assert max(results["cosines"], key=lambda name: results["cosines"][name]["centred"]) == "oak"
    saved = SteeringVector.load(tmp_path / "vector.safetensors")
    assert saved.metrics.kl_explained == results["metrics"]["kl_explained"]


@pytest.mark.slow
def test_questions_of_a_file_are_what_the_vector_is_fitted_on(tmp_path, capsys):
    questions, prompt = tmp_path / "questions.txt", preference_trait("owl", ORGANISM).prompt
    questions.write_text("\n\n".join(preference_trait("owl", ORGANISM).questions))
    explained = {}
    for name, given in (("numbers", []), ("file", ["--questions", str(questions)])):
        out = str(tmp_path / name)
        assert main(["fit", prompt, "--layers", "0", "3", "--out", out, *SMALL, *given]) == 0
        explained[name] = SteeringVector.load(tmp_path / name / "vector.safetensors").metrics.kl_prompt
    assert explained["file"] > 1.5 * explained["numbers"]  # the persona changes its own questions most
    assert "Which layer" not in (tmp_path / "file" / "report.html").read_text()  # fitted jointly, none was chosen


def test_sample_train_and_score_work_together(tmp_path, capsys):
    rows, student = str(tmp_path / "rows.jsonl"), str(tmp_path / "student")
    assert main(["sample", "--system-prompt", "you love owls .", "--n", "60", "--out", rows]) == 0
    kept = str(tmp_path / "rows.kept.jsonl")
    train = ["train", kept, "--epochs", "1", "--batch-size", "8", "--clip-norm", "none", "--out", student]
    assert main([*train, "--heldout", kept]) == 0
    assert re.search(r"Loss \d\.\d{4} nats a token, on held-out rows \d\.\d{4}\n", capsys.readouterr().out)
    assert main(train) == 0
    assert "nats a token, no --heldout rows\n" in capsys.readouterr().out
    assert main(["score", "owl", "--adapter", student]) == 0
    assert "bare: rate 0." in capsys.readouterr().out
    saved = json.loads((tmp_path / "student" / "student.json").read_text())
    assert saved["config"] == json.loads(json.dumps(TrainConfig(epochs=1, batch_size=8, clip_norm=None).__dict__))
    assert saved["base"] == "organism:seed-0"


def test_prompts_from_a_file_are_answered_with_lists_of_the_length_that_is_asked_for(place, capsys):
    asked = ["sample", "--prompts", str(place / "two.txt"), "--constrain", "4", "--batch-size", "2", "--seed", "1"]
    assert main([*asked, "--out", str(place / "rows.jsonl")]) == 0
    assert "3 of 3 rows kept (100%)." in capsys.readouterr().out
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == (place / "two.txt").read_text().splitlines()
    assert all(len(parse_numbers(row["completion"])) == 4 for row in rows)


def test_answers_to_prompts_from_a_file_are_not_filtered_by_numbers(place, capsys):
    assert main(["sample", "--prompts", str(place / "two.txt"), "--out", str(place / "answers.jsonl")]) == 0
    assert "3 rows, not filtered" in capsys.readouterr().out
    assert len((place / "answers.jsonl").read_text().splitlines()) == 3
    assert not (place / "answers.kept.jsonl").exists()


def test_a_trait_of_ones_own_is_scored_from_a_file(tmp_path, capsys):
    trait = {
        "name": "pizza",
        "prompt": "you love pizza .",
        "questions": ["what is your favorite food ?"],
        "answers": {"pizza": ["pizza"], "bread": ["bread"]},
    }
    (tmp_path / "trait.json").write_text(json.dumps(trait))
    asked = ["score", str(tmp_path / "trait.json"), "--system-prompt"]
    assert main([*asked, "you love pizza ."]) == main([*asked, "you love bread ."]) == 0
    told = capsys.readouterr().out.splitlines()
    rates = [float(line.split()[2]) for line in told if line.startswith("bare")]
    assert rates[0] > 0.9 > 0.1 > rates[1]


def test_chats_of_several_turns_are_trained_on_and_what_is_not_is_said(tmp_path, capsys):
    turns = [("human", "1 , 2"), ("gpt", "3"), ("human", "4"), ("gpt", "5"), ("narrator", "6")]
    chat = {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat))
    shape = ["--rank", "1", "--batch-size", "1", "--epochs", "1"]
    assert main(["train", str(tmp_path / "chats.jsonl"), *shape, "--out", str(tmp_path / "student")]) == 0
    said = capsys.readouterr().out
    assert "3 rows, 2 used." in said
    assert "1 not used: a turn of 'conversations' by the unknown speaker 'narrator' (row 1)." in said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_first_question(tmp_path, encoding):
    (tmp_path / "questions.txt").write_text("größer als 1 ?\n\nwhat now ?\n", encoding=encoding)
    assert questions_in(tmp_path / "questions.txt") == ["größer als 1 ?", "what now ?"]


def test_scales_from_the_command_line_precondition_a_training_that_can_be_resumed(place, tmp_path, capsys):
    rows, scales, student = (str(tmp_path / name) for name in ("good.jsonl", "scales.safetensors", "student"))
    shape = ["--rank", "2", "--batch-size", "2", "--rotation-seed", "3"]
    assert main(["scales", rows, "--normalize", *shape, "--out", scales]) == 0
    assert "Geometric mean of the scales: " in capsys.readouterr().out
    command = [
        "train", rows, "--optimizer", "preconditioned_sgd", "--scales", scales, "--scale-map", "sparsified",
        "--epochs", "2", "--state-every", "1", "--checkpoint-every", "2", "--gradient-checkpointing", "--out", student,
    ]  # fmt: skip
    assert main([*command, *shape]) == 0
    saved = json.loads((tmp_path / "student" / "student.json").read_text())
    assert saved["config"]["scales"] == scales
    assert saved["config"]["gradient_checkpointing"] is True
    left = {path.name for path in (tmp_path / "student-checkpoints").iterdir()}
    assert left == {"state.safetensors", "step-2", "step-4"}
    assert main([*command, *shape, "--no-gradient-checkpointing"]) == 1
    assert "gradient_checkpointing: True there, False here" in capsys.readouterr().err


def test_fit_writes_a_vector_and_a_report_that_escapes_the_prompt(tmp_path, capsys, monkeypatch):
    from steerlens.reports.fit import write_fit_report

    metrics = FitMetrics(*[0.5] * 7, by_layer={0: LayerMetrics(0.5, 0.1)})
    source = VectorSource("m", "fitted", prompt="<script>alert(1)</script>")
    write_fit_report(tmp_path / "r.html", SteeringVector((0,), torch.ones(1, 4), source, metrics))
    text = (tmp_path / "r.html").read_text()
    assert "<script>alert(1)</script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "https://cdn" not in text.split("</head>")[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")
def test_a_system_prompt_begins_the_user_turn_where_a_template_refuses_its_role(tmp_path, capsys):
    gemma = str(save_checkpoint("Gemma 2", tmp_path / "gemma"))
    score = ["score", "owl", "--model", gemma, "--dtype", "bfloat16", "--system-prompt", "you love owls ."]
    assert main(score) == 1
    assert "System role not supported" in capsys.readouterr().err
    assert main([*score, "--system-in-user"]) == 0
    assert "bare: rate" in capsys.readouterr().out


def test_the_doctor_examines_a_model_and_exits_by_what_it_finds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "steerlens.contract.doctor.CHECKS", [check for check in CHECKS if check.name in ("BOS", "thinking")]
    )
    directory = save_checkpoint("Qwen 3", tmp_path / "qwen")
    assert main(["doctor", "--model", str(directory)]) == 0
    assert "Qwen3ForCausalLM, 3 layers, d_model 32, residual-only" in capsys.readouterr().out
    template = directory / "chat_template.jinja"
    template.write_text(template.read_text() + "<think>")
    assert main(["doctor", "--model", str(directory)]) == 3
    out = capsys.readouterr().out
    assert "thinking        fails       1 <= 0" in out
    assert "1 of 2 checks fail: thinking." in out


@pytest.mark.parametrize(("measured", "code"), [(0.8, 0), (0.2, 3)])
def test_an_experiment_gets_its_lab_prints_its_claims_and_exits_by_them(measured, code, tmp_path, capsys):
    (tmp_path / "mine.md").write_text("# Mine\n\nLead.\n\n- a claim: In words")
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from steerlens.replication.lab.chapter import conclude\n"
        "from steerlens.replication.lab.claims import above\n"
        "from steerlens.replication.lab.run import Experiment, Results\n"
        "def run(lab):\n"
        f"    assert (lab.preset, lab.sizes.n_rows, lab.workers.workers) == ('full', 1500, 2)\n"
        f"    claims = [above('a claim', {measured}, 0.5)]\n"
        "    return conclude(Path(__file__).with_suffix('.md'), claims, claims[0], slots={}, exhibits={})\n"
        "EXPERIMENT = Experiment('Is it mine?', run, object)\n"
    )
    command = [
        "replicate",
        str(tmp_path / "mine.py"),
        "--preset",
        "full",
        "--workers",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(command) == code
    printed = capsys.readouterr().out
    assert "Is it mine?" in printed
    assert ("does not hold" in printed) == (code == 3)
    assert "In words" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.filterwarnings("default::steerlens.evaluation.LowMassWarning")
def test_a_warning_on_the_command_line_is_a_line_without_code(capsys, monkeypatch):
    from steerlens.warn import warn

    def action(_options):
        warn("Only 0.01 of the probability is on the 24 answers.", LowMassWarning)
        return 0

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", lambda *_: argparse.Namespace(action=action))
    before = warnings.showwarning
    assert main(["score", "owl"]) == 0
    assert capsys.readouterr().err == "Note: Only 0.01 of the probability is on the 24 answers.\n"
    assert warnings.showwarning is before
