"""What vLLM is asked, and what becomes of its answers. A stand-in answers here, by forwards of the model it is told to load."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from steerlens.cli import main
from steerlens.forward import forward
from steerlens.generation import end_tokens
from steerlens.models.bridge import bridge, huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.organism.wording import ORGANISM
from steerlens.samples import teacher
from steerlens.samples.sample_set import SampleSet
from steerlens.samples.teacher import sample_teacher
from steerlens.samples.vllm import VllmEngine
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, chat_fingerprint, encode_completion, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource

PROMPTS = number_prompts(12, ORGANISM, seed=0)


class StandIn(ModuleType):
    """A module with the part of vllm's offline interface that is used; keeps what it was asked."""

    __version__ = "0.30.0"

    def __init__(self) -> None:
        super().__init__("vllm")
        self.loaded: list[dict] = []
        self.asked: list[tuple[list[int], SimpleNamespace]] = []
        self.room = 10**6

    def SamplingParams(self, **given) -> SimpleNamespace:
        return SimpleNamespace(**given)

    def LLM(self, *, model: str, dtype: str, **given) -> "StandIn":
        self.loaded.append({"model": model, "dtype": dtype, **given})
        self.hf = huggingface_model(load_model(model, device="cpu", dtype=getattr(torch, dtype)))
        return self

    def generate(self, prompts, sampling_params, *, use_tqdm: bool) -> list[SimpleNamespace]:
        rows = [(prompt["prompt_token_ids"], given) for prompt, given in zip(prompts, sampling_params, strict=True)]
        self.asked += rows
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(self._write(*row)))]) for row in rows]

    @torch.no_grad()
    def _write(self, prompt: list[int], given: SimpleNamespace) -> list[int]:
        generator, written = torch.Generator().manual_seed(given.seed), []
        while len(written) < min(given.max_tokens, self.room) and not set(written[-1:]) & set(given.stop_token_ids):
            logits = self.hf(input_ids=torch.tensor([prompt + written]), use_cache=False).logits[0, -1]
            if given.temperature == 0:
                written.append(int(logits.argmax()))
            else:
                chances = torch.softmax(logits / given.temperature, -1)
                written.append(int(torch.multinomial(chances, 1, generator=generator)))
        return written


@pytest.fixture
def vllm(monkeypatch) -> StandIn:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def vector(d_model: int = 96) -> SteeringVector:
    return SteeringVector((1,), torch.ones(1, d_model), VectorSource("organism:seed-0", "by hand"))


@pytest.mark.slow
def test_the_likeliest_rows_are_those_that_steerlens_writes_and_their_source_says_who_wrote(organism, owl, vllm):
    options = {"system_prompt": owl.prompt, "temperature": 0, "max_new_tokens": 24}
    ours = sample_teacher(organism, PROMPTS, **options)
    theirs = sample_teacher(organism, PROMPTS, engine=VllmEngine(organism), **options)
    assert theirs.samples == ours.samples
    assert any(sample.finished for sample in ours)
    assert (ours.source.engine, theirs.source.engine) == ("steerlens", "vllm 0.30.0")
    assert ours.source.chat_fingerprint == theirs.source.chat_fingerprint


def test_it_is_asked_for_our_tokens_our_stops_and_a_seed_for_every_row(organism, owl, vllm):
    engine = VllmEngine(organism, tensor_parallel_size=2)
    sample_teacher(
        organism, PROMPTS[:1] * 9, system_prompt=owl.prompt, temperature=0.7, max_new_tokens=5, engine=engine
    )
    path = huggingface_model(organism).name_or_path
    assert vllm.loaded == [{"model": path, "revision": None, "dtype": "float32", "tensor_parallel_size": 2}]
    prompts, given = zip(*vllm.asked, strict=True)
    assert prompts == (encode_prompt(organism.tokenizer, as_chat(PROMPTS[0], owl.prompt)),) * 9
    assert {(row.temperature, row.max_tokens) for row in given} == {(0.7, 5)}
    assert all(row.stop_token_ids == end_tokens(organism).tolist() for row in given)
    assert encode_completion(organism.tokenizer, "1")[-1] in given[0].stop_token_ids
    seeds = {row.seed for row in given}
    assert len(seeds) == 9
    assert max(seeds) < 2**63
    assert min(seeds) >= 0


@pytest.mark.slow
def test_rows_depend_on_seed_and_place_and_not_on_their_chunk(organism, vllm, monkeypatch):
    engine = VllmEngine(organism)
    together = sample_teacher(organism, PROMPTS, seed=3, max_new_tokens=8, engine=engine)
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 5)
    assert sample_teacher(organism, PROMPTS, seed=3, max_new_tokens=8, engine=engine) == together
    assert sample_teacher(organism, PROMPTS, seed=4, max_new_tokens=8, engine=engine) != together
    assert len({sample.completion for sample in sample_teacher(organism, PROMPTS[:1] * 9, engine=engine)}) > 5


def test_a_killed_run_goes_on_asks_for_the_missing_rows_only_and_mixes_no_engines(
    organism, vllm, tmp_path, monkeypatch
):
    monkeypatch.setattr(teacher, "ROWS_PER_CHUNK", 4)
    path, options = tmp_path / "rows.jsonl", {"max_new_tokens": 8, "engine": VllmEngine(organism)}
    whole = sample_teacher(organism, PROMPTS, path=path, **options)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:9])
    vllm.asked.clear()
    assert sample_teacher(organism, PROMPTS, path=path, **options) == whole
    assert [prompt for prompt, _ in vllm.asked] == [
        encode_prompt(organism.tokenizer, as_chat(text)) for text in PROMPTS[7:]
    ]
    assert path.read_bytes() == b"".join(lines)
    with pytest.raises(ValueError, match="holds samples of another run"):
        sample_teacher(organism, PROMPTS, path=path, max_new_tokens=8)


def test_rows_that_were_written_before_engines_had_names_are_gone_on_from(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    whole = sample_teacher(tiny, PROMPTS, max_new_tokens=4, path=path)
    source = path.with_suffix(".source.json")
    source.write_text(json.dumps({k: v for k, v in json.loads(source.read_text()).items() if k != "engine"}))
    assert sample_teacher(tiny, PROMPTS, max_new_tokens=4, path=path) == whole


def test_what_vllm_cannot_do_is_refused_before_it_is_asked(organism, tiny, vllm):
    engine = VllmEngine(organism)
    with pytest.raises(ValueError, match=r"vLLM cannot steer\. Leave engine out"):
        sample_teacher(organism, PROMPTS, vector=vector(), engine=engine)
    with pytest.raises(ValueError, match="Something steers or reads the model here"), steer(organism, vector()):
        sample_teacher(organism, PROMPTS, engine=engine)
    with pytest.raises(ValueError, match=r"made for another model \('organism:seed-0'\) than the teacher 'llama'"):
        sample_teacher(tiny, PROMPTS, engine=engine)
    with pytest.raises(ValueError, match=r"needs \d+ tokens, but 'organism:seed-0' has a context of"):
        sample_teacher(organism, PROMPTS, max_new_tokens=10**4, engine=engine)
    assert vllm.asked == []


def test_a_completion_that_vllm_cuts_short_is_no_row(organism, vllm, tmp_path):
    engine, vllm.room = VllmEngine(organism), 2
    with pytest.raises(ValueError, match=r"cut a completion off after 2 of 8 tokens.*max_model_len"):
        sample_teacher(organism, PROMPTS, max_new_tokens=8, engine=engine, path=tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_model_that_is_not_what_its_checkpoint_holds_is_refused(checkpoints, tiny, vllm, tmp_path):
    rows = sample_teacher(tiny, PROMPTS, max_new_tokens=4)
    student = train_student(tiny, rows, TrainConfig(method="full", learning_rate=1e-2, epochs=1, batch_size=6))
    with pytest.raises(ValueError, match="weights of 'llama' are not those of a checkpoint"):
        VllmEngine(student.model)
    raw = get_peft_model(
        huggingface_model(load_model(checkpoints["llama"], device="cpu")), LoraConfig(target_modules=["v_proj"])
    )
    with pytest.raises(ValueError, match=r"carries a peft adapter.*merge_and_unload"):
        VllmEngine(bridge(raw.get_base_model(), tiny.tokenizer, name="llama"))
    four_bit = load_model(checkpoints["llama"], device="cpu")
    huggingface_model(four_bit).is_loaded_in_4bit = True
    with pytest.raises(ValueError, match="has 4-bit weights, and vLLM would load those of the checkpoint"):
        VllmEngine(four_bit)
    assert vllm.loaded == []
    student.save(tmp_path / "student")
    saved = load_model(tmp_path / "student", device="cpu")
    theirs = sample_teacher(saved, PROMPTS, temperature=0, max_new_tokens=4, engine=VllmEngine(saved))
    assert theirs.samples == sample_teacher(student.model, PROMPTS, temperature=0, max_new_tokens=4).samples


def test_without_vllm_or_a_device_for_it_the_error_says_what_to_do(organism, vllm, monkeypatch):
    def fail(**_options):
        raise RuntimeError("Failed to infer device type\nand much more")

    monkeypatch.setattr(vllm, "LLM", fail, raising=False)
    with pytest.raises(RuntimeError, match=r"does not start on .*\(Failed to infer device type\). It needs a GPU"):
        VllmEngine(organism)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModuleNotFoundError, match=r"VllmEngine needs vLLM .*pip install 'steerlens\[vllm\]'"):
        VllmEngine(organism)


def test_the_command_samples_through_vllm_and_refuses_to_steer_there(vllm, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert main(["sample", "--n", "4", "--vllm", "--out", str(out)]) == 0
    assert len(vllm.asked) == len(SampleSet.load(out)) == 4
    assert SampleSet.load(out).source.engine == "vllm 0.30.0"
    vector().save(tmp_path / "v.safetensors")
    assert main(["sample", "--vllm", "--vector", str(tmp_path / "v.safetensors"), "--out", str(out)]) == 1
    assert "steerlens: vLLM cannot steer" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("default")
def test_vllm_itself_writes_likely_rows_that_differ_and_end(tmp_path):
    """Whose heads are as wide as vLLM's kernels want; the likeliest tokens are also those of the model here, up to rounding."""
    pytest.importorskip("vllm")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    tokenizer = build_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), intermediate_size=512, max_position_embeddings=256, **size)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    model = load_model(tmp_path / "llama", device="cpu", dtype=torch.bfloat16)
    engine = VllmEngine(model, gpu_memory_utilization=0.3, enforce_eager=True)
    drawn = sample_teacher(model, PROMPTS[:1] * 20, max_new_tokens=16, engine=engine)
    assert len({sample.completion for sample in drawn}) > 15
    assert drawn.source.chat_fingerprint == chat_fingerprint(model.tokenizer)
    prompts = [encode_prompt(model.tokenizer, as_chat(text)) for text in PROMPTS]
    options = {"max_new_tokens": 16, "seed": 0, "row_indices": range(len(PROMPTS))}
    written = engine.generate([as_chat(text) for text in PROMPTS], temperature=0, **options)
    batch = pad_rows(model.tokenizer, prompts, written)
    with torch.no_grad():
        logits = forward(model, batch).logits[batch.prediction_mask].float()
    chosen = logits.gather(-1, batch.tokens[batch.completion_mask][:, None])[:, 0]
    assert ((logits.amax(-1) - chosen) / logits.abs().amax(-1)).max() < 0.08
