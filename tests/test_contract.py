"""The contract holds on small random models of real architectures, and every check of it can fail."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steerlens.contract import chats, parity, steering
from steerlens.contract.architectures import ARCHITECTURES, save_checkpoint
from steerlens.contract.check import Check, Outcome, Subject, examine
from steerlens.contract.checks import CHECKS
from steerlens.contract.doctor import doctor
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.students.student import Student
from steerlens.text.batches import TokenBatch
from steerlens.text.chat import encode_prompt
from steerlens.vectors.vector import SteeringVector

UNUSUAL = ("Qwen 3.5", "GPT-J", "Bloom")
"""Linear attention; blocks that return tuples; MLPs that take the residual as well."""

QUICK = ("Llama 3", "Gemma 2", "GPT-2")
"""Families of the default run; the others are slow tests."""

TEMPLATE_CHECKS = {"system role", "whole chat", "thinking", "bare context"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[[str], Path]:
    """The directory of an architecture's checkpoint."""
    root = tmp_path_factory.mktemp("architectures")

    def checkpoint(name: str) -> Path:
        directory = root / name.replace(" ", "_")
        return directory if directory.is_dir() else save_checkpoint(name, directory)

    return checkpoint


def outcomes(subject: Subject, *names: str) -> dict[str, Outcome]:
    checks = [check for check in CHECKS if not names or check.name in names]
    return {outcome.check.name: outcome for outcome in examine(subject, checks)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in ARCHITECTURES]
)
def test_the_contract_holds(name, saved):
    found = outcomes(Subject(load_model(saved(name), device="cpu")))
    assert {check: outcome.note for check, outcome in found.items() if outcome.status == "fails"} == {}
    without_template = TEMPLATE_CHECKS if ARCHITECTURES[name].template is None else set()
    assert {check for check, outcome in found.items() if outcome.status == "cannot run"} == without_template


@pytest.mark.parametrize("name", UNUSUAL)
def test_fitting_takes_its_shortcuts_on_unusual_blocks_too(name, saved):
    found = outcomes(Subject(load_model(saved(name), device="cpu")), "shared prefix", "skipped blocks", "generation")
    assert [outcome.status for outcome in found.values()] == ["holds"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.bfloat16) for name in ARCHITECTURES), *((name, torch.float16) for name in QUICK)]
)
def test_the_contract_holds_in_half_precision(name, dtype, saved):
    found = outcomes(Subject(load_model(saved(name), device="cpu", dtype=dtype)))
    assert {check: outcome.note for check, outcome in found.items() if outcome.status == "fails"} == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Llama 3", "'<|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\n'"),
        ("Llama 3.2", "Today Date: 26 Jul 2024"),
        ("Qwen 2.5", "You are Qwen, created by Alibaba Cloud."),
        ("Qwen 3", "'<|im_start|>user\\n'"),
        ("OLMo 3", "You are Olmo"),
    ],
)
def test_what_a_template_inserts_by_itself_is_named(name, text, saved):
    assert text in outcomes(Subject(load_model(saved(name), device="cpu")), "bare context")["bare context"].note


def test_a_refused_system_role_is_noted_with_its_way_out(saved):
    for name in ("Gemma 2", "Mistral"):
        found = outcomes(Subject(load_model(saved(name), device="cpu")), "system role")["system role"]
        assert (found.status, found.note) == ("holds", "refused by the template; --system-in-user works")


def one_layer_too_low(monkeypatch, subject):
    monkeypatch.setattr("steerlens.residuals.stream.check_layer", lambda model, layer: max(0, layer - 1))


def positions_that_count_padding(monkeypatch, subject):
    def counted(batch: TokenBatch) -> torch.Tensor:
        return torch.arange(batch.tokens.shape[1]).expand(batch.tokens.shape)

    monkeypatch.setattr(TokenBatch, "position_ids", property(counted))


def another_weight(monkeypatch, subject):
    with torch.no_grad():
        next(huggingface_model(subject.model).parameters()).mul_(1.5)


def a_shorter_prefix(monkeypatch, subject):
    original = parity.completion_logits_after
    monkeypatch.setattr(parity, "completion_logits_after", lambda model, prefix, b: original(model, prefix[:-1], b))


def too_few_steps(monkeypatch, subject):
    monkeypatch.setattr(steering, "FIT", replace(steering.FIT, steps=3))


def an_adapter_of_another_scale(monkeypatch, subject):
    save = Student.save

    def scaled(student: Student, directory: str) -> None:
        save(student, directory)
        path = Path(directory) / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 1}))

    monkeypatch.setattr(Student, "save", scaled)


def a_vector_in_half_precision(monkeypatch, subject):
    save = SteeringVector.save
    monkeypatch.setattr(
        SteeringVector, "save", lambda v, path: save(replace(v, directions=v.directions.bfloat16().float()), path)
    )


def weights_that_are_not_looked_at(monkeypatch, subject):
    monkeypatch.setattr("steerlens.vectors.source.weights_fingerprint", lambda model: "the same")


def the_tokenizers_end(monkeypatch, subject):
    monkeypatch.setattr("steerlens.text.chat.end_of_turn", lambda tokenizer: tokenizer.eos_token_id)


def a_template(change: Callable[[str], str]):
    def changed(monkeypatch, subject):
        monkeypatch.setattr(subject.model.tokenizer, "chat_template", change(subject.model.tokenizer.chat_template))

    return changed


BROKEN = {
    "logits": another_weight,
    "residuals": one_layer_too_low,
    "gradients": one_layer_too_low,
    "generation": positions_that_count_padding,
    "shared prefix": a_shorter_prefix,
    "skipped blocks": one_layer_too_low,
    "planted vector": too_few_steps,
    "student": an_adapter_of_another_scale,
    "vector file": a_vector_in_half_precision,
    "other weights": weights_that_are_not_looked_at,
    "BOS": a_template(lambda template: "{{ bos_token }}{{ bos_token }}" + template),
    "system role": a_template(lambda template: "{% set messages = messages[-1:] %}" + template),
    "whole chat": the_tokenizers_end,
    "thinking": a_template(lambda template: template + "{% if add_generation_prompt %}<think>{% endif %}"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_fails_where_what_it_claims_is_broken(name, saved, monkeypatch):
    absolute_positions = "GPT-2" if name == "generation" else "Phi 3"  # rotary ones do not notice a shift
    subject = Subject(load_model(saved(absolute_positions), device="cpu"))
    BROKEN[name](monkeypatch, subject)
    found = outcomes(subject, name)[name]
    assert found.status == "fails"
    assert found.measurement is not None, found.note


def test_a_prompt_without_the_bos_that_its_tokenizer_adds_is_told(saved, monkeypatch):
    subject = Subject(load_model(saved("Llama 3"), device="cpu"))
    bos = subject.model.tokenizer.bos_token_id
    assert subject.model.tokenizer.encode("")[:1] == [bos]
    assert outcomes(subject, "BOS")["BOS"].status == "holds"
    monkeypatch.setattr(chats, "encode_prompt", lambda *arguments: [i for i in encode_prompt(*arguments) if i != bos])
    found = outcomes(subject, "BOS")["BOS"]
    assert found.status == "fails"
    assert found.measurement is not None
    assert "missing" in found.measurement.note


def test_every_claim_has_a_way_to_break_it():
    facts = {check.name for check in CHECKS if check.measure.__annotations__["return"] is str}
    assert {check.name for check in CHECKS} - set(BROKEN) == facts == {"bare context", "memory"}


def test_a_check_without_memory_says_so_and_does_not_stop_the_others(saved, monkeypatch):
    def out_of_memory(_subject: Subject) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr(parity, "free_bytes", lambda device: 1000)
    subject = Subject(load_model(saved("Llama 3"), device="cpu"))
    checks = [CHECKS[0], Check("other", "runs out", out_of_memory), CHECKS[1]]
    second_copy, other, residuals = examine(subject, checks)
    assert (second_copy.status, other.status, residuals.status) == ("cannot run", "cannot run", "holds")
    assert second_copy.note == "a second copy of the weights takes 0.0 GB, and 0.0 GB are free"
    assert "Tried to allocate 20 GiB" in other.note


def examined_by_the_doctor(monkeypatch, *names: str) -> None:
    monkeypatch.setattr("steerlens.contract.doctor.CHECKS", [check for check in CHECKS if check.name in names])


def test_the_doctor_reads_an_adapter_and_reports_what_it_cannot_do(saved, tmp_path, monkeypatch):
    examined_by_the_doctor(monkeypatch, *({check.name for check in CHECKS} - {"planted vector"}))
    base = load_model(saved("Llama 3"), device="cpu")
    parity.train_student(base, parity.samples(Subject(base)), replace(parity.TrainConfig(), rank=2)).save(
        tmp_path / "a"
    )
    lines: list[str] = []
    doctor(lambda: load_model(saved("Llama 3"), device="cpu", adapter=tmp_path / "a"), tmp_path / "a", lines.append)
    assert lines[-1] == "\nNothing fails.", "\n".join(lines)
    said = {line[:15].strip(): line for line in lines}
    assert "holds" in said["logits"]
    assert "cannot run" in said["student"]
    assert "already carries an adapter" in said["student"]


def test_the_doctor_fails_on_a_model_that_does_not_keep_the_contract_or_does_not_load(saved, tmp_path, monkeypatch):
    examined_by_the_doctor(monkeypatch, "residuals", "BOS")

    def broken():
        model = load_model(saved("Llama 3"), device="cpu")
        model.tokenizer.chat_template = model.tokenizer.chat_template.replace("{{ bos_token }}", "{{ bos_token * 2 }}")
        return model

    lines: list[str] = []
    assert not doctor(broken, None, lines.append)
    assert lines[-1] == "\n1 of 2 checks fail: BOS."
    assert not doctor(lambda: load_model(tmp_path / "none"), None, lines.append)
    assert "There is no directory" in lines[-1]
