"""An adapter acts as in peft, is nothing where it is switched off, and is refused where either does not hold."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlens.contract.architectures import save_checkpoint
from steerlens.generation import generate
from steerlens.models.adapters import UNDERSTOOD, adapter_disabled, has_adapter
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import weights_are_as_loaded
from steerlens.models.loading import load_model
from steerlens.residuals.capture import capture_residuals
from steerlens.text.chat import as_chat, render
from steerlens.vectors.interventions import steer
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

IDS = torch.tensor([[4, 5, 9, 6, 30]])
ALL = ["q_proj", "down_proj"]
CONFIGS = {
    "LORA": peft.LoraConfig(r=2, target_modules=ALL),
    "ADALORA": peft.AdaLoraConfig(init_r=2, target_r=2, total_step=10, target_modules=ALL),
    "IA3": peft.IA3Config(target_modules=ALL, feedforward_modules=["down_proj"]),
    "LOHA": peft.LoHaConfig(r=2, target_modules=ALL),
    "LOKR": peft.LoKrConfig(r=2, target_modules=ALL),
    "OFT": peft.OFTConfig(oft_block_size=4, target_modules=ALL),
    "BOFT": peft.BOFTConfig(boft_block_size=4, target_modules=["q_proj"]),
    "VERA": peft.VeraConfig(r=2, target_modules=["q_proj"]),
    "FOURIERFT": peft.FourierFTConfig(n_frequency=20, target_modules=ALL),
    "LN_TUNING": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "HRA": peft.HRAConfig(r=2, target_modules=["q_proj"]),
    "TRAINABLE_TOKENS": peft.TrainableTokensConfig(token_indices=[4, 9]),
    "MISS": peft.MissConfig(r=2, target_modules=["q_proj"]),
    "RANDLORA": peft.RandLoraConfig(r=2, target_modules=["q_proj"]),
    "SHIRA": peft.ShiraConfig(r=2, target_modules=["q_proj"]),
    "C3A": peft.C3AConfig(block_size=4, target_modules=["q_proj"]),
}
VARIANTS = {
    "DoRA": peft.LoraConfig(r=2, target_modules=ALL, use_dora=True),
    "rank-stabilised": peft.LoraConfig(r=2, target_modules=ALL, use_rslora=True),
    "embedding": peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]),
    "lm_head saved whole": peft.LoraConfig(r=2, target_modules=ALL, modules_to_save=["lm_head"]),
    "norms and embedding saved whole": peft.LoraConfig(
        r=2, target_modules=ALL, modules_to_save=["embed_tokens", "input_layernorm", "norm"]
    ),
    "all biases": peft.LoraConfig(r=2, target_modules=ALL, bias="all"),
    "its own biases": peft.LoraConfig(r=2, target_modules=ALL, bias="lora_only"),
    "trained tokens": peft.LoraConfig(r=2, target_modules=ALL, trainable_token_indices=[4, 9]),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A small Llama with biases."""
    directory = save_checkpoint("Llama 3", tmp_path_factory.mktemp("llama") / "base")
    config = json.loads((directory / "config.json").read_text()) | {"attention_bias": True, "mlp_bias": True}
    (directory / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return directory


def trained(base: Path, config: Any, directory: Path, change: Any = None) -> torch.Tensor:
    """The logits of a PeftModel with random adapter weights, which is saved to the directory."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if change is not None:
        change(model)
    config = copy.deepcopy(config)
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(model, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    model.config.use_cache = False
    with torch.no_grad():
        return PeftModel.from_pretrained(plain(base, change), directory).eval()(input_ids=IDS).logits


def plain(base: Path, change: Any = None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base)
    if change is not None:
        change(model)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return huggingface_model(model)(IDS).logits


def test_every_kind_that_is_allowed_is_looked_at():
    assert set(CONFIGS) == set(UNDERSTOOD)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*CONFIGS, *VARIANTS])
def test_an_adapter_acts_as_in_peft_and_its_base_comes_back_exactly(name, llama, tmp_path):
    expected = trained(llama, (CONFIGS | VARIANTS)[name], tmp_path)
    base = plain(llama)(IDS).logits
    assert (expected - base).abs().max() > 1e-2, "the control: this adapter does something"
    model = load_model(llama, device="cpu", adapter=tmp_path)
    assert has_adapter(model)
    torch.testing.assert_close(logits(model), expected)
    with adapter_disabled(model):
        assert torch.equal(logits(model), base)
    torch.testing.assert_close(logits(model), expected)
    copied = copy.deepcopy(model)
    with adapter_disabled(copied):
        assert torch.equal(logits(copied), base)
        torch.testing.assert_close(logits(model), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["LORA", "IA3", "LN_TUNING", "lm_head saved whole", "trained tokens"])
def test_the_bases_weights_are_as_loaded_under_any_adapter(name, llama, tmp_path):
    trained(llama, (CONFIGS | VARIANTS)[name], tmp_path)
    model = load_model(llama, device="cpu", adapter=tmp_path)
    assert weights_are_as_loaded(model)
    with torch.no_grad():
        huggingface_model(model).model.norm.weight.add_(1)
    assert not weights_are_as_loaded(model)


@pytest.mark.filterwarnings("ignore")
def test_replace_takes_the_component_of_a_base_whose_modules_were_saved_whole(llama, tmp_path):
    trained(llama, VARIANTS["norms and embedding saved whole"], tmp_path)
    model = load_model(llama, device="cpu", adapter=tmp_path)
    vector = SteeringVector(
        (1,), torch.randn(1, 32, generator=torch.Generator().manual_seed(0)), VectorSource.of(model, method="random")
    )
    unit, asked = vector.unit[0], {"chats": [as_chat("what is 3 ?")], "layers": [1], "positions": "all"}
    base = capture_residuals(load_model(llama, device="cpu"), **asked)[0] @ unit
    adapted = capture_residuals(model, **asked)[0] @ unit
    with steer(model, vector, mode="replace"):
        replaced = capture_residuals(model, **asked)[0] @ unit
    assert (adapted - base).abs().max() > 1e-2
    torch.testing.assert_close(replaced, base, atol=1e-4, rtol=1e-4)


REFUSED = {
    "PROMPT_TUNING": peft.PromptTuningConfig(num_virtual_tokens=3),
    "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=3),
    "P_TUNING": peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8),
    "ADAPTION_PROMPT": peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=1),
    "LORA that waits for its invocation tokens": peft.LoraConfig(
        r=2, target_modules=ALL, alora_invocation_tokens=[4], task_type="CAUSAL_LM"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_does_not_act_in_the_weights_alone_is_refused_by_name(kind, llama, tmp_path):
    config = copy.deepcopy(REFUSED[kind])
    config.task_type = "CAUSAL_LM"
    get_peft_model(AutoModelForCausalLM.from_pretrained(llama), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"The adapter's kind is {kind}"):
        load_model(llama, device="cpu", adapter=tmp_path)


def three_more_rows(model: Any) -> None:
    torch.manual_seed(3)
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=ALL),
        LoraConfig(r=2, target_modules=ALL, modules_to_save=["embed_tokens", "lm_head"]),
    ],
    ids=["rows saved beside", "rows saved whole"],
)
def test_an_adapter_that_added_tokens_brings_its_rows_tokenizer_and_template(config, llama, tmp_path):
    expected = trained(llama, config, tmp_path, change=three_more_rows)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    size = len(tokenizer) + 16 + 3  # the embedding has 16 rows without a token
    tokenizer.add_tokens([f"<new-{i}>" for i in range(size - len(tokenizer))])
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    model = load_model(llama, device="cpu", adapter=tmp_path)
    assert render(model.tokenizer, as_chat("which ?")).startswith("[user] which ?")
    assert model.tokenizer.encode("<new-18>", add_special_tokens=False) == [size - 1]
    base = plain(llama)(IDS).logits
    torch.testing.assert_close(logits(model), expected)
    with adapter_disabled(model):
        assert torch.equal(logits(model)[..., : base.shape[-1]], base)
    assert len(generate(model, [as_chat("which <new-3> ?")], max_new_tokens=3)[0]) > 0


@pytest.mark.filterwarnings("ignore")
def test_added_tokens_whose_rows_were_not_saved_are_refused(llama, tmp_path):
    trained(llama, CONFIGS["LORA"], tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens([f"<new-{i}>" for i in range(30)])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has \d+ tokens, the model has \d+ embeddings, and the adapter brings none"):
        load_model(llama, device="cpu", adapter=tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_base_is_named_as_such(llama, tmp_path):
    trained(llama, CONFIGS["LORA"], tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "owner/Large-7B"}))
    other = save_checkpoint("Gemma 3", tmp_path / "gemma")
    shapes = r"does not fit 'gemma': .* is \[.*\] in the adapter and \[.*\] in the model\."
    with pytest.raises(ValueError, match=shapes + " It was trained on 'owner/Large-7B'"):
        load_model(other, device="cpu", adapter=tmp_path / "a")
    fewer = json.loads((llama / "config.json").read_text()) | {"num_hidden_layers": 1}
    shutil.copytree(llama, tmp_path / "fewer")
    (tmp_path / "fewer" / "config.json").write_text(json.dumps(fewer))
    with pytest.raises(ValueError, match=r"the model has no place for .*layers\.1\."):
        load_model(tmp_path / "fewer", device="cpu", adapter=tmp_path / "a")


def test_another_name_of_the_base_warns_and_the_same_name_elsewhere_does_not(llama, tmp_path, recwarn):
    trained(llama, CONFIGS["LORA"], tmp_path)
    load_model(llama, device="cpu", adapter=tmp_path)
    path = tmp_path / "adapter_config.json"
    for named in ("somewhere/else/base", "owner/Base"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": named}))
        load_model(llama, device="cpu", adapter=tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "owner/Base-Instruct"}))
    with pytest.warns(UserWarning, match=r"says that its base is 'owner/Base-Instruct', and the model is 'base'"):
        load_model(llama, device="cpu", adapter=tmp_path)
