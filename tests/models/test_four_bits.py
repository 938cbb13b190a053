"""4-bit weights: what is missing is said, and with bitsandbytes the contract holds, gradients and students included."""

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from steerlens import models
from steerlens.cli import main
from steerlens.contract.architectures import save_checkpoint
from steerlens.contract.check import Subject, examine
from steerlens.contract.checks import CHECKS
from steerlens.forward import forward
from steerlens.models.bridge import huggingface_model
from steerlens.models.identity import weights_fingerprint
from steerlens.models.loading import load_model
from steerlens.models.unwrapping import unwrapped
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.interventions import steer
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

ROWS = SampleSet(tuple(Sample(i, prompt, "12 , 7") for i, prompt in enumerate(number_prompts(16, ORGANISM, seed=0))))


@pytest.fixture
def four_bit(checkpoints):
    """The tiny Llama in NF4."""
    pytest.importorskip("bitsandbytes")
    return load_model(checkpoints["llama"], device="cpu", load_in_4bit=True)


def test_without_bitsandbytes_the_error_says_what_to_install(checkpoints, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError, match=r"4-bit weights need bitsandbytes.*pip install 'steerlens\[4bit\]'"):
        load_model(checkpoints["llama"], device="cpu", load_in_4bit=True)
    assert main(["score", "owl", "--model", str(checkpoints["llama"]), "--load-in-4bit"]) == 1
    assert capsys.readouterr().err.startswith("steerlens: 4-bit weights need bitsandbytes.")


def test_a_device_without_4_bits_is_named_and_the_files_are_not_blamed(checkpoints, monkeypatch):
    def refuse(*_arguments, **_options):
        raise RuntimeError("None of the available devices are supported. Please check the docs.")

    monkeypatch.setattr(models, "four_bits", lambda _dtype: {})
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(ValueError, match=r"in 4 bits on {'': 'cpu'} \(RuntimeError: None of the available") as error:
        load_model(checkpoints["llama"], device="cpu", load_in_4bit=True)
    assert "damaged" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_contract_holds_on_4_bit_weights(dtype, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = load_model(save_checkpoint("Llama 3", tmp_path / "llama"), device="cpu", dtype=dtype, load_in_4bit=True)
    found = list(examine(Subject(model), CHECKS))
    assert {outcome.check.name: outcome.note for outcome in found if outcome.status not in ("holds", "noted")} == {}


def gradient(model, tokens: torch.Tensor) -> torch.Tensor:
    """d loss / d v of a vector v = 0 that is added behind block 0."""
    hf, zero = huggingface_model(model).requires_grad_(False), torch.zeros(32, requires_grad=True)
    handle = model.blocks[0].hook_out.register_forward_hook(lambda _module, _inputs, resid: resid + zero)
    logits = hf(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1)
    handle.remove()
    return torch.autograd.grad(torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()), zero)[0]


def test_after_a_forward_without_gradients_those_that_follow_are_of_the_dequantised_weights(four_bit, tiny):
    """bitsandbytes would pack the weights in that forward (on a CPU with AVX512-BF16), and let no gradient through."""
    from bitsandbytes.functional import dequantize_4bit

    quantised, plain = huggingface_model(four_bit), huggingface_model(tiny)
    tokens = torch.randint(4, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), unwrapped(quantised), unwrapped(plain):
        for name, module in quantised.named_modules():
            if hasattr(module, "quant_state"):
                weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
                assert (weight - plain.get_submodule(name).weight).abs().max() > 1e-3
                plain.get_submodule(name).weight.copy_(weight)
        quantised(input_ids=tokens)
    torch.testing.assert_close(gradient(four_bit, tokens), gradient(tiny, tokens), rtol=1e-4, atol=1e-6)


def test_a_student_of_4_bit_weights_comes_back_and_leaves_them_as_they_were(four_bit, checkpoints, chats, tmp_path):
    student = train_student(four_bit, ROWS, TrainConfig(rank=2, learning_rate=5e-2, epochs=1, batch_size=4))
    student.save(tmp_path / "student")
    again = load_model(checkpoints["llama"], device="cpu", load_in_4bit=True, adapter=tmp_path / "student")
    untouched = load_model(checkpoints["llama"], device="cpu", load_in_4bit=True)
    batch = pad_rows(four_bit.tokenizer, [encode_prompt(four_bit.tokenizer, chat) for chat in chats])
    with torch.no_grad():
        trained, reloaded, base, fresh = (
            forward(model, batch).logits for model in (student.model, again, four_bit, untouched)
        )
    torch.testing.assert_close(reloaded, trained)
    torch.testing.assert_close(base, fresh)
    assert (trained - base).abs().max() > 1e-2
    assert weights_fingerprint(again) == weights_fingerprint(four_bit)


def test_training_4_bit_weights_themselves_is_refused(four_bit):
    with pytest.raises(ValueError, match=r"4-bit weights, which no gradient step can change.*method=\"lora\""):
        train_student(four_bit, ROWS, TrainConfig(method="full"))


def test_a_vector_of_the_whole_weights_acts_on_the_4_bit_ones_and_each_source_says_which(four_bit, tiny):
    whole, quantised = (VectorSource.of(model, method="by hand") for model in (tiny, four_bit))
    assert (whole.dtype, quantised.dtype) == ("float32", "float32, 4-bit")
    assert whole.weights != quantised.weights
    with steer(four_bit, SteeringVector((1,), torch.ones(1, 32), whole)):
        pass
