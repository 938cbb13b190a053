"""Loading goes by one path, names what is wrong, and a bridge that the user booted does as well as ours."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from steerlens.cache import NAME
from steerlens.checks import WrongInput
from steerlens.evaluation import score_trait
from steerlens.forward import forward
from steerlens.generation import generate
from steerlens.models.adapters import adapter_disabled
from steerlens.models.bridge import evaluating, huggingface_model
from steerlens.models.loading import load_model
from steerlens.models.unwrapping import unwrapped
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import capture_residuals
from steerlens.residuals.stream import stop_after
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fitting import fit_prompt_vector
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource


@pytest.fixture
def booted(checkpoints, tiny):
    """The tiny Llama as `TransformerBridge.boot_transformers` wraps it: every norm, map and attention."""
    from transformer_lens.model_bridge import TransformerBridge

    raw = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    return TransformerBridge.boot_transformers("llama", hf_model=raw, tokenizer=tiny.tokenizer)


@pytest.fixture
def student(tiny):
    rows = SampleSet(
        tuple(Sample(i, prompt, "12 , 7") for i, prompt in enumerate(number_prompts(16, ORGANISM, seed=0)))
    )
    return train_student(tiny, rows, TrainConfig(rank=2, learning_rate=5e-2, epochs=1, batch_size=4))


def random_vector(layer: int = 1) -> SteeringVector:
    direction = 3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((layer,), direction, VectorSource("llama", "random"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")
def test_a_booted_bridge_captures_steers_generates_and_fits_as_ours_does(booted, tiny, chats, owl):
    for layer in (0, 3):
        torch.testing.assert_close(
            capture_residuals(booted, chats, layers=[layer]),
            capture_residuals(tiny, chats, layers=[layer]),
            atol=1e-3,
            rtol=1e-3,
        )
    if NAME == "cache":  # a name that TransformerLens 4.3's own attention does not know
        with pytest.raises(ValueError, match="leaves the cache empty"):
            generate(booted, chats, max_new_tokens=6)
        return
    vector = SteeringVector((1,), random_vector().directions, VectorSource(booted.cfg.model_name, "random"))
    with steer(booted, vector), steer(tiny, vector.for_model(tiny)):
        assert generate(booted, chats, max_new_tokens=6, temperature=0) == generate(
            tiny, chats, max_new_tokens=6, temperature=0
        )
        assert score_trait(booted, owl).rate == pytest.approx(score_trait(tiny, owl).rate, rel=1e-3)
    config = FitConfig(n_train=24, n_validation=16, n_heldout=16, max_new_tokens=4, steps=10, batch_size=24)
    ours, theirs = (fit_prompt_vector(m, "you love owls .", layers=1, config=config).metrics for m in (tiny, booted))
    assert ours.kl_prompt == pytest.approx(theirs.kl_prompt, rel=1e-2)
    assert ours.kl_explained == pytest.approx(theirs.kl_explained, abs=0.02)


def test_replace_gives_the_student_its_bases_component_and_leaves_the_rest(student, tiny, chats):
    vector = random_vector()
    unit = vector.unit[0]
    plain = capture_residuals(student.model, chats, layers=[1], positions="all")[0]
    base = capture_residuals(tiny, chats, layers=[1], positions="all")[0]
    with steer(student.model, vector, mode="replace"):
        replaced = capture_residuals(student.model, chats, layers=[1], positions="all")[0]
    torch.testing.assert_close(replaced @ unit, base @ unit, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        replaced - (replaced @ unit)[:, None] * unit, plain - (plain @ unit)[:, None] * unit, atol=1e-4, rtol=1e-4
    )
    assert ((plain - base) @ unit).abs().max() > 1e-2


def test_replace_means_the_same_in_cached_batched_generation_and_in_single_uncached_rows(student, chats):
    model, vector = student.model, random_vector()
    with steer(model, vector, mode="replace"):
        batched = generate(model, chats, max_new_tokens=5, temperature=0)
    for chat, expected in zip(chats, batched, strict=True):
        tokens = encode_prompt(model.tokenizer, chat)
        new: list[int] = []
        with torch.no_grad(), steer(model, vector, mode="replace"):
            while len(new) < len(expected):
                logits = huggingface_model(model)(input_ids=torch.tensor([tokens + new]), use_cache=False).logits
                new.append(int(logits[0, -1].argmax()))
        assert new == expected


def test_evaluating_takes_dropout_out_draws_nothing_and_gives_every_modules_mode_back(checkpoints, chats):
    model = load_model(checkpoints["gpt2"], device="cpu")  # with dropout after every block
    expected = capture_residuals(model, chats, layers=[3])
    model.train()
    frozen = huggingface_model(model).transformer.h[1].eval()
    before = torch.get_rng_state()
    with evaluating(model):
        seen = capture_residuals(model, chats, layers=[3])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(seen, expected)
    inside = {id(module) for module in frozen.modules()}
    assert all(module.training != (id(module) in inside) for module in huggingface_model(model).modules())
    assert not torch.equal(capture_residuals(model, chats, layers=[3]), expected)


def test_replace_needs_an_adapter(tiny):
    with (
        pytest.raises(ValueError, match=r"has no peft adapter.*adapter=directory"),
        steer(tiny, random_vector(), mode="replace"),
    ):
        pass


def test_switching_the_adapter_off_gives_the_base_and_on_again_the_student(student, tiny, chats):
    batch = pad_rows(tiny.tokenizer, [encode_prompt(tiny.tokenizer, chat) for chat in chats])
    with torch.no_grad():
        before = forward(student.model, batch).logits
        with adapter_disabled(student.model):
            assert torch.equal(forward(student.model, batch).logits, forward(tiny, batch).logits)
        assert torch.equal(forward(student.model, batch).logits, before)


def test_unwrapping_is_undone_and_shows_the_raw_module_names(tiny, checkpoints):
    hf = huggingface_model(tiny)
    wrapped = [name for name, _ in hf.named_modules()]
    raw = [name for name, _ in AutoModelForCausalLM.from_pretrained(checkpoints["llama"]).named_modules()]
    with unwrapped(hf):
        assert [name for name, _ in hf.named_modules()] == raw
        copied = copy.deepcopy(hf)
    assert [name for name, _ in hf.named_modules()] == wrapped
    ids = torch.tensor([[4, 5, 9, 6]])
    with torch.no_grad():
        assert torch.equal(copied(input_ids=ids).logits, hf(input_ids=ids).logits)


def test_the_tokenizer_stays_as_it_was_loaded(checkpoints):
    model = load_model(checkpoints["llama"], device="cpu")
    assert model.tokenizer.encode("owl", add_special_tokens=True) == model.tokenizer.encode(
        "owl", add_special_tokens=False
    )


def test_a_quantised_checkpoint_names_the_package_that_it_needs(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available", lambda: False)
    shutil.copytree(checkpoints["llama"], tmp_path / "4bit")
    path = tmp_path / "4bit" / "config.json"
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantised))
    with pytest.raises(ValueError, match=r"needs a package that is not installed: .*bitsandbytes"):
        load_model(tmp_path / "4bit", device="cpu")


def test_a_model_without_a_cache_is_refused_in_words(tiny, chats):
    keeps_none = huggingface_model(tiny).register_forward_hook(
        lambda _module, _inputs, output: output.__class__(logits=output.logits)
    )
    with pytest.raises(ValueError, match=r"'llama' \(LlamaForCausalLM\) returns no (past_key_values|cache)"):
        generate(tiny, chats, max_new_tokens=2)
    keeps_none.remove()


def test_half_precision_models_take_a_float32_vector(checkpoints, chats):
    model = load_model(checkpoints["llama"], device="cpu", dtype=torch.bfloat16)
    with steer(model, random_vector()):
        residuals = capture_residuals(model, chats, layers=[1])
    assert residuals.dtype == torch.float32
    plain = capture_residuals(model, chats, layers=[1])
    torch.testing.assert_close(
        residuals - plain, random_vector().directions.expand_as(plain[0])[None], atol=0.1, rtol=0.1
    )


def test_a_model_on_several_devices_reads_steers_and_generates_as_on_one(checkpoints, tiny, chats):
    on_cpu = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "lm_head"), "cpu")
    on_disk = {"model.layers.2": "disk", "model.layers.3": "disk"}
    spread = load_model(checkpoints["llama"], device_map={**on_cpu, "model.rotary_emb": "cpu", **on_disk})
    block = spread.blocks[3].original_component
    moving = block.forward
    with stop_after(spread, 0):
        assert block.forward is not moving
    assert block.forward is moving, "accelerate's own forward, which brings the weights, is put back"
    layers, vector = [0, 3], random_vector(layer=2)
    torch.testing.assert_close(
        capture_residuals(spread, chats, layers=layers), capture_residuals(tiny, chats, layers=layers)
    )
    with steer(spread, vector), steer(tiny, vector):
        ours, theirs = (generate(model, chats, max_new_tokens=4, seed=1) for model in (spread, tiny))
    assert ours == theirs
    with pytest.raises(ValueError, match="is spread over cpu, disk, and a student is trained on one device"):
        train_student(spread, SampleSet((Sample(0, "1 , 2", "3"),)))


def test_device_and_device_map_together_are_refused(checkpoints):
    with pytest.raises(ValueError, match="device='cpu' and device_map='auto', which both say where"):
        load_model(checkpoints["llama"], device="cpu", device_map="auto")


def test_an_argument_of_the_wrong_kind_is_named(checkpoints, as_users_call):
    raw = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    with pytest.raises(
        WrongInput, match=r"(?s)takes a name or a path, got .*A model that is in memory goes to wrap_model"
    ):
        load_model(raw)
    for dtype in ("bfloat16", torch.int8):
        with pytest.raises(WrongInput, match=r"torch.bfloat16.* got .*(bfloat16|int8)"):
            load_model(checkpoints["llama"], device="cpu", dtype=dtype)


def test_the_dtype_is_the_checkpoints_own_unless_one_is_given(checkpoints, tmp_path):
    AutoModelForCausalLM.from_pretrained(checkpoints["llama"], dtype=torch.bfloat16).save_pretrained(tmp_path)
    load_model(checkpoints["llama"], device="cpu").tokenizer.save_pretrained(tmp_path)
    assert huggingface_model(load_model(tmp_path, device="cpu")).dtype == torch.bfloat16
    assert huggingface_model(load_model(tmp_path, device="cpu", dtype=torch.float32)).dtype == torch.float32
    assert huggingface_model(load_model(device="cpu")).dtype == torch.float32


def test_a_checkpoint_without_some_weights_is_refused_instead_of_filled_with_random_ones(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"has no weights for model\.layers\.2\.mlp\.up_proj\.weight"):
        load_model(tmp_path / "cut", device="cpu")
