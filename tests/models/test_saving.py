"""What a model saves is what it is: for plain transformers, for `load_model`, and as a state dict."""

import copy
import json

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from steerlens import load_model, save_model
from steerlens.contract.architectures import save_checkpoint
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import weights_fingerprint
from steerlens.residuals.capture import capture_residuals
from steerlens.text.chat import as_chat, render

IDS = torch.tensor([[4, 5, 9, 6, 30]])
FAMILIES = ("Llama 3", "Llama 3.2", "GPT-2", "Gemma 3 (4B and up)", "Qwen 3.5", "Bloom")
"""Weights of one's own and tied ones, Conv1D maps, a vision tower, linear attention."""


@pytest.fixture(params=FAMILIES)
def any_family(request, tmp_path):
    return load_model(save_checkpoint(request.param, tmp_path / "original"), device="cpu"), tmp_path


@torch.no_grad()
def logits(hf) -> torch.Tensor:
    return hf(IDS, use_cache=False).logits


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal but for the last digits: a wrapped unembedding adds zeros, for which torch takes another kernel."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_state_dict_is_hugging_faces_and_gives_every_weight_back(any_family):
    model, path = any_family
    hf, plain = huggingface_model(model), AutoModelForCausalLM.from_pretrained(path / "original")
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    assert list(kept) == list(plain.state_dict()) == list(hf.state_dict())
    expected = logits(hf)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
    assert not torch.equal(logits(hf), expected)
    model.load_state_dict(kept)
    assert torch.equal(logits(hf), expected)
    plain.load_state_dict(kept)
    same(logits(plain), expected)


def test_a_copy_has_a_state_of_its_own(any_family):
    model, _ = any_family
    copied = copy.deepcopy(model)
    expected = logits(huggingface_model(model))
    with torch.no_grad():
        for parameter in huggingface_model(copied).parameters():
            parameter.zero_()
    assert torch.equal(logits(huggingface_model(model)), expected)
    copied.load_state_dict(model.state_dict())
    assert torch.equal(logits(huggingface_model(copied)), expected)


def test_a_state_that_lacks_weights_or_has_others_is_refused_with_their_names(tiny):
    state = tiny.state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(RuntimeError, match=rf'Missing key\(s\) in state_dict: "{name}"'):
        tiny.load_state_dict({key: value for key, value in state.items() if key != name})
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: .*another"):
        tiny.load_state_dict(state | {"model.another": state[name]})
    assert tiny.load_state_dict({}, strict=False).missing_keys == list(state)


def test_a_saved_model_is_a_plain_checkpoint_with_the_same_logits_and_tokenizer(any_family):
    model, path = any_family
    with torch.no_grad():
        for parameter in huggingface_model(model).parameters():  # not what was loaded
            parameter.mul_(1.01)
    expected = logits(huggingface_model(model))
    save_model(model, path / "saved")
    same(logits(AutoModelForCausalLM.from_pretrained(path / "saved").eval()), expected)
    again = load_model(path / "saved", device="cpu")
    assert torch.equal(logits(huggingface_model(again)), expected)
    tokenizer = AutoTokenizer.from_pretrained(path / "saved")
    for one in (again.tokenizer, tokenizer):
        assert one.chat_template == model.tokenizer.chat_template
        assert one.encode("what is 3 ?") == model.tokenizer.encode("what is 3 ?")
    assert huggingface_model(again).generation_config.to_dict() == huggingface_model(model).generation_config.to_dict()
    for save in (model.save_pretrained, huggingface_model(model).save_pretrained):
        save(path / "by hand")
        same(logits(AutoModelForCausalLM.from_pretrained(path / "by hand").eval()), expected)


def test_what_version_5_of_transformers_renamed_has_its_older_name_too(tiny, tmp_path):
    huggingface_model(tiny).config.rope_parameters = {"rope_type": "default", "rope_theta": 54321.0}
    save_model(tiny, tmp_path / "saved")
    config, tokenizer = (
        json.loads((tmp_path / "saved" / f"{name}.json").read_text()) for name in ("config", "tokenizer_config")
    )
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 54321.0
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    read = AutoConfig.from_pretrained(tmp_path / "saved")
    assert read.rope_parameters["rope_theta"] == 54321.0


def test_saving_again_replaces_what_it_wrote_and_nothing_else(tiny, tmp_path):
    save_model(tiny, tmp_path / "a")
    tiny.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}!{% endfor %}"
    save_model(tiny, tmp_path / "a")
    assert render(load_model(tmp_path / "a", device="cpu").tokenizer, as_chat("hello")) == "hello!"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files, such as thesis\.txt"):
        save_model(tiny, tmp_path / "b")
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_what_was_there(tiny, tmp_path, monkeypatch):
    save_model(tiny, tmp_path / "a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}

    def full_disk(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tiny.tokenizer), "save_pretrained", full_disk)
    with pytest.raises(OSError, match="Free some space"):
        save_model(tiny, tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


ADAPTERS = {
    "all maps": peft.LoraConfig(r=2, target_modules="all-linear"),
    "the tied embedding": peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]),
    "the tied unembedding, whole": peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "some tokens": peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[4, 9]),
    "IA3": peft.IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "norms": peft.LNTuningConfig(target_modules=["input_layernorm"]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ADAPTERS)
def test_base_and_adapter_are_written_as_one_and_stay_apart_in_memory(name, tmp_path):
    base = save_checkpoint("Llama 3.2", tmp_path / "base")  # embedding and unembedding are one matrix
    config = copy.deepcopy(ADAPTERS[name])
    config.task_type = "CAUSAL_LM"
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    expected = logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter").eval()
    )
    model = load_model(base, device="cpu", adapter=tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"carries a peft adapter.*merge_adapter=True"):
        save_model(model, tmp_path / "one")
    with pytest.raises(ValueError, match="carries a peft adapter"):
        model.save_pretrained(tmp_path / "one")
    before = capture_residuals(model, [as_chat("what is 3 ?")], layers=[0, 2])
    save_model(model, tmp_path / "one", merge_adapter=True)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "one").eval()), expected)
    assert torch.equal(capture_residuals(model, [as_chat("what is 3 ?")], layers=[0, 2]), before)
    torch.testing.assert_close(logits(huggingface_model(load_model(tmp_path / "one", device="cpu"))), expected)


def test_what_was_written_says_where_it_comes_from(tiny, tmp_path):
    save_model(tiny, tmp_path / "a")
    facts = json.loads((tmp_path / "a" / "steerlens.json").read_text())
    assert facts["model"] == "llama"
    assert facts["weights"] == weights_fingerprint(load_model(tmp_path / "a", device="cpu"))


@pytest.mark.parametrize("by", ["the bridge", "the model inside", "the model inside a copy"])
@pytest.mark.parametrize("family", ["Llama 3", "Llama 3.2", "GPT-2"])
@pytest.mark.filterwarnings("ignore")
def test_a_resized_embedding_has_the_old_rows_and_is_saved(family, by, tmp_path):
    model = load_model(save_checkpoint(family, tmp_path / "base"), device="cpu")
    before, size = logits(huggingface_model(model)), model.cfg.d_vocab
    model = copy.deepcopy(model) if "copy" in by else model
    (model if by == "the bridge" else huggingface_model(model)).resize_token_embeddings(size + 5)
    after = logits(huggingface_model(model))
    assert torch.equal(after[..., :size], before)
    assert after.shape[-1] == model.cfg.d_vocab == size + 5
    save_model(model, tmp_path / "larger")
    same(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "larger").eval()), after)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    assert torch.equal(logits(huggingface_model(model)), after)
