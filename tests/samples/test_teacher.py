"""A row depends on its seed and prompt alone, and an interrupted run goes on to the same rows."""

import json

import pytest
import torch

from steerlens.prompts.numbers import number_prompts
from steerlens.samples import teacher
from steerlens.samples.teacher import sample_teacher
from steerlens.vectors.vector import SteeringVector, VectorSource

PROMPTS = number_prompts(12, seed=0)


def test_a_row_does_not_depend_on_its_batch(tiny, monkeypatch):
    together = sample_teacher(tiny, PROMPTS, seed=3, max_new_tokens=8)
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 1)
    assert sample_teacher(tiny, PROMPTS, seed=3, max_new_tokens=8) == together
    assert sample_teacher(tiny, PROMPTS, seed=4, max_new_tokens=8) != together


def test_equal_prompts_get_different_answers(tiny):
    answers = {sample.completion for sample in sample_teacher(tiny, PROMPTS[:1] * 20, max_new_tokens=8)}
    assert len(answers) > 15


@pytest.mark.parametrize("cut", [0, 10, 400, 700])
def test_an_interrupted_run_goes_on_to_the_same_rows(tiny, tmp_path, monkeypatch, cut):
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 4)
    path = tmp_path / "rows.jsonl"
    whole = sample_teacher(tiny, PROMPTS, max_new_tokens=8, path=path)
    path.write_bytes(path.read_bytes()[:cut])
    again = sample_teacher(tiny, PROMPTS, max_new_tokens=8, path=path)
    assert again == whole
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == list(range(12))


def test_another_runs_file_is_refused_and_kept(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    sample_teacher(tiny, PROMPTS, max_new_tokens=8, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="holds samples of another run"):
        sample_teacher(tiny, PROMPTS, max_new_tokens=8, seed=9, path=path)
    with pytest.raises(ValueError, match="answers other prompts"):
        sample_teacher(tiny, PROMPTS[::-1], max_new_tokens=8, path=path)
    assert path.read_bytes() == before


def test_prompt_and_steering_reach_the_samples_and_their_source(tiny):
    vector = SteeringVector((1,), 5 * torch.ones(1, 32), VectorSource("llama", "by hand"))
    plain = sample_teacher(tiny, PROMPTS, max_new_tokens=8)
    prompted = sample_teacher(tiny, PROMPTS, system_prompt="you love owls .", max_new_tokens=8)
    steered = sample_teacher(tiny, PROMPTS, vector=vector, max_new_tokens=8)
    assert len({plain.samples, prompted.samples, steered.samples}) == 3
    assert prompted.source.chat_fingerprint != plain.source.chat_fingerprint
    assert steered.source.steering == "add at all tokens: by hand (layer 1 norm 28.284)"


def test_a_prompt_that_does_not_fit_the_context_is_refused(tiny):
    with pytest.raises(ValueError, match=r"needs \d+ tokens, but 'llama' has a context of 256"):
        sample_teacher(tiny, ["1 " * 300])


def test_no_prompts_are_refused(tiny):
    with pytest.raises(ValueError, match="got no chats"):
        teacher.generate(tiny, [], max_new_tokens=3)
