"""A row depends on its seed and prompt alone, and an interrupted run goes on to the same rows."""

import json
from dataclasses import replace

import pytest
import torch

from steerlens.organism.wording import ORGANISM
from steerlens.samples import teacher
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.chat import encode_completion
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.vector import SteeringVector, VectorSource

PROMPTS = number_prompts(12, ORGANISM, seed=0)


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


def test_the_cost_counts_the_tokens_of_the_parts_before(organism, monkeypatch):
    counts = []
    monkeypatch.setattr(teacher.Cost, "after", lambda _, n_done: counts.append(n_done))
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 4)
    samples = sample_teacher(organism, number_prompts(12, ORGANISM, seed=0), max_new_tokens=8)
    n_tokens = sum(len(organism.tokenizer.encode(one.completion)) + one.finished for one in samples)
    assert counts == sorted(counts)
    assert counts[-1] == n_tokens


def test_the_bar_moves_before_the_first_part_is_finished_and_ends_at_the_number_of_rows(organism, monkeypatch):
    shown = []

    class Bar(teacher.tqdm):
        def update(self, n=1):
            shown.append(self.n + n)
            return super().update(n)

    monkeypatch.setattr(teacher, "tqdm", Bar)
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 20)
    sample_teacher(organism, number_prompts(30, ORGANISM, seed=0), max_new_tokens=24)
    assert shown == sorted(shown)
    assert shown[-1] == 30
    assert 0 < min(filter(None, shown)) < 20


def test_another_runs_file_is_refused_and_kept(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    sample_teacher(tiny, PROMPTS, max_new_tokens=8, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="holds samples of another run"):
        sample_teacher(tiny, PROMPTS, max_new_tokens=8, seed=9, path=path)
    with pytest.raises(ValueError, match="answers other prompts"):
        sample_teacher(tiny, PROMPTS[::-1], max_new_tokens=8, path=path)
    assert path.read_bytes() == before


def vector_of(seed: int) -> SteeringVector:
    directions = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))
    return SteeringVector((1,), 5 * directions / directions.norm(), VectorSource("llama", "random"))


def test_what_changes_the_rows_but_not_their_sources_words_is_noticed(tiny, tmp_path):
    """Another length, another random vector of the same norm, and a student under its base's name write other rows."""
    path, before = tmp_path / "rows.jsonl", len(PROMPTS) // 2
    options = {"vector": vector_of(0), "max_new_tokens": 8, "path": path}
    first = sample_teacher(tiny, PROMPTS[:before], **options)
    assert sample_teacher(tiny, PROMPTS, **options).samples[:before] == first.samples
    with pytest.raises(ValueError, match=r"says max_new_tokens: 8 there\)"):
        sample_teacher(tiny, PROMPTS, **{**options, "max_new_tokens": 9})
    with pytest.raises(ValueError, match=r"says directions: '\w+' there\)"):
        sample_teacher(tiny, PROMPTS, **{**options, "vector": vector_of(1)})
    rows = SampleSet(tuple(Sample(i, prompt, "12 , 7") for i, prompt in enumerate(PROMPTS)))
    for method in ("lora", "full"):
        student = train_student(tiny, rows, TrainConfig(method=method, rank=2, epochs=1, learning_rate=1e-2))
        with pytest.raises(ValueError, match=r"says weights: '\w+' there\)"):
            sample_teacher(student.model, PROMPTS, **options)


def test_files_whose_source_says_less_are_read_and_not_gone_on_with(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    samples = sample_teacher(tiny, PROMPTS, max_new_tokens=8, path=path)
    source = json.loads((tmp_path / "rows.source.json").read_text())
    for name in ("max_new_tokens", "weights", "directions"):
        del source[name]
    (tmp_path / "rows.source.json").write_text(json.dumps(source))
    old = SampleSet.load(path)
    assert old.samples == samples.samples
    assert old.source == replace(samples.source, max_new_tokens=None, weights=None)
    with pytest.raises(ValueError, match="max_new_tokens: None there; weights: None there"):
        sample_teacher(tiny, PROMPTS, max_new_tokens=8, path=path)


def test_an_answer_whose_end_is_the_last_token_that_is_allowed_is_finished(tiny, monkeypatch):
    end = encode_completion(tiny.tokenizer, "7")[-1]
    (number,) = tiny.tokenizer.encode("7", add_special_tokens=False)
    monkeypatch.setattr(teacher, "generate", lambda *_args, **_options: [[number, end], [number, number], [end]])
    samples = sample_teacher(tiny, PROMPTS[:3], max_new_tokens=2)
    assert [(sample.completion, sample.finished) for sample in samples] == [("7", True), ("7 7", False), ("", True)]


def test_a_negative_temperature_which_would_turn_the_distribution_round_is_refused(tiny):
    with pytest.raises(ValueError, match=r"temperature=-1\.0 is not allowed"):
        sample_teacher(tiny, PROMPTS, temperature=-1.0)


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
    with pytest.raises(ValueError, match="chats is empty"):
        teacher.generate(tiny, [], max_new_tokens=3)
