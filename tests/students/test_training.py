"""Training equals the textbook loop, leaves its base alone, and what it saves loads without steerlens."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from steerlens.contract.architectures import save_checkpoint
from steerlens.evaluation import score_trait
from steerlens.forward import completion_logits
from steerlens.models.bridge import bridge, huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.losses import completion_losses, mean_loss
from steerlens.students.student import start_student
from steerlens.students.training import train_student
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_completion, encode_prompt
from steerlens.text.context import ChatContextWarning
from steerlens.text.number_lists import number_prompts
from tests.conftest import random_model

QUICK = TrainConfig(rank=2, learning_rate=5e-3, epochs=1, batch_size=4)


def weights(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in huggingface_model(model).parameters()]


def test_row_losses_are_hugging_faces_loss_of_each_row_alone(any_model, checkpoints, samples):
    raw = AutoModelForCausalLM.from_pretrained(checkpoints[any_model.cfg.model_name]).eval()
    rows = [
        (encode_prompt(any_model.tokenizer, as_chat(s.prompt)), encode_completion(any_model.tokenizer, s.completion))
        for s in samples.samples[:5]
    ]
    for side in ("left", "right"):
        batch = pad_rows(any_model.tokenizer, [r[0] for r in rows], [r[1] for r in rows], side=side)
        with torch.no_grad():
            ours = completion_losses(any_model, batch)
            for loss, (prompt, completion) in zip(ours, rows, strict=True):
                ids, labels = torch.tensor([prompt + completion]), torch.tensor([[-100] * len(prompt) + completion])
                torch.testing.assert_close(loss, raw(input_ids=ids, labels=labels).loss, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_full_fine_tuning_equals_a_plain_loop_over_the_raw_model(tiny, samples, optimizer):
    config = replace(QUICK, method="full", optimizer=optimizer, learning_rate=1e-2, epochs=2, clip_norm=0.5)
    student = train_student(tiny, samples, config)
    raw = random_model("llama")
    torch_optimizer = (
        torch.optim.AdamW(raw.parameters(), lr=1e-2, weight_decay=0.0)
        if optimizer == "adamw"
        else torch.optim.SGD(raw.parameters(), lr=1e-2)
    )
    order, step, n_steps = torch.Generator().manual_seed(config.seed), 0, 10
    for _ in range(2):
        for indices in torch.randperm(20, generator=order).split(4):
            warm_up = (step + 1) / 1 if step < 1 else 0.5 * (1 + math.cos(math.pi * (step - 1) / (n_steps - 1)))
            losses, lengths = [], []
            for i in indices.tolist():
                prompt = encode_prompt(tiny.tokenizer, as_chat(samples.samples[i].prompt))
                completion = encode_completion(tiny.tokenizer, samples.samples[i].completion)
                labels = torch.tensor([[-100] * len(prompt) + completion])
                losses.append(raw(input_ids=torch.tensor([prompt + completion]), labels=labels).loss * len(completion))
                lengths.append(len(completion))
            (torch.stack(losses).sum() / sum(lengths)).backward()
            torch.nn.utils.clip_grad_norm_(raw.parameters(), 0.5)
            torch_optimizer.param_groups[0]["lr"] = 1e-2 * warm_up
            torch_optimizer.step()
            torch_optimizer.zero_grad()
            step += 1
    pairs = zip(weights(student.model), raw.parameters(), strict=True)
    close = torch.cat([torch.isclose(a, b.detach(), atol=2e-4, rtol=1e-3).flatten() for a, b in pairs])
    # where a gradient is of rounding's size, Adam's step is as large as any, and of either sign
    assert (~close).float().mean() <= (1e-3 if optimizer == "adamw" else 0.0)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_base_is_untouched_and_the_same_seed_gives_the_same_student(tiny, samples, method):
    before, state = weights(tiny), torch.get_rng_state()
    config = replace(QUICK, method=method)
    one, two = train_student(tiny, samples, config), train_student(tiny, samples, config)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(tiny), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert not tiny.training
    assert one.losses == two.losses
    assert all(torch.equal(a, b) for a, b in zip(weights(one.model), weights(two.model), strict=True))
    other = train_student(tiny, samples, replace(config, seed=1))
    assert one.losses != other.losses


def test_a_student_starts_and_loads_without_a_warning_that_no_user_can_act_on(tiny, checkpoints, samples, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=FutureWarning)
        train_student(tiny, samples, TrainConfig(rank=2, epochs=1, batch_size=4)).save(tmp_path / "adapter")
        load_model(checkpoints["llama"], adapter=tmp_path / "adapter", device="cpu")


def test_training_lowers_the_held_out_loss(tiny, samples):
    train, heldout = samples.split(4)
    before = mean_loss(tiny, heldout)
    student = train_student(tiny, train, replace(QUICK, rank=8, epochs=8, learning_rate=1e-2), heldout=heldout)
    assert student.heldout_loss < before - 0.5


def test_a_saved_adapter_gives_the_same_logits_in_plain_peft_and_in_load_model(
    any_model, checkpoints, samples, tmp_path
):
    directory = checkpoints[any_model.cfg.model_name]
    student = train_student(any_model, samples, replace(QUICK, learning_rate=5e-2))
    student.save(tmp_path / "student")
    ids = torch.tensor([[4, 5, 9, 6]])
    with torch.no_grad():
        base = huggingface_model(any_model)(input_ids=ids).logits
        ours = huggingface_model(student.model)(input_ids=ids).logits
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(directory), tmp_path / "student").eval()
        reloaded = load_model(directory, adapter=tmp_path / "student", device="cpu")
        torch.testing.assert_close(plain(input_ids=ids).logits, ours)
        torch.testing.assert_close(huggingface_model(reloaded)(input_ids=ids).logits, ours)
    assert (ours - base).abs().max() > 1e-3


def test_a_fully_trained_student_loads_as_a_plain_model(tiny, samples, tmp_path):
    student = train_student(tiny, samples, replace(QUICK, method="full"))
    student.save(tmp_path / "student")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "student").eval()
    ids = torch.tensor([[4, 5, 9, 6]])
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, huggingface_model(student.model)(input_ids=ids).logits)


def test_checkpoints_are_students_on_the_way(tiny, samples, checkpoints, tmp_path):
    config = replace(QUICK, checkpoint_every=2)
    train_student(tiny, samples, config, checkpoints=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2", "step-4"]
    load_model(checkpoints["llama"], adapter=tmp_path / "step-2", device="cpu")


def test_a_bridge_that_the_user_booted_trains_the_same(checkpoints, tiny, samples):
    from transformer_lens.model_bridge import TransformerBridge

    booted = TransformerBridge.boot_transformers(
        "llama", hf_model=AutoModelForCausalLM.from_pretrained(checkpoints["llama"]), tokenizer=tiny.tokenizer
    )
    ours, theirs = train_student(tiny, samples, QUICK), train_student(booted, samples, QUICK)
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)


def test_a_loss_that_is_not_finite_stops_with_the_step(tiny, samples):
    with pytest.raises(FloatingPointError, match=r"loss became (nan|inf) at step \d+ of 50\. Lower learning_rate"):
        train_student(
            tiny, samples, replace(QUICK, method="full", optimizer="sgd", learning_rate=1e9, clip_norm=None, epochs=10)
        )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank", 0, "rank=0"),
        ("rank", 0.5, r"rank=0\.5 is not allowed. It must be a whole number, 1 or greater"),
        ("epochs", 1.5, r"epochs=1\.5 is not allowed. It must be a whole number, 1 or greater"),
        ("batch_size", 2.0, r"batch_size=2\.0"),
        ("state_every", -1, "state_every=-1 is not allowed. It must be a whole number, 0 or greater"),
        ("seed", -1, "seed=-1"),
        ("warmup_share", 1.5, r"warmup_share=1\.5 is not allowed. It must be in 0 <= share <= 1"),
        ("warmup_share", -0.1, r"warmup_share=-0\.1"),
        ("lora_alpha", 0.0, r"lora_alpha=0\.0"),
        ("clip_norm", -1.0, "clip_norm=-1.0"),
    ],
)
def test_impossible_settings_are_refused(field, value, message):
    config = TrainConfig()
    vars(config)[field] = value
    with pytest.raises(ValueError, match=message):
        config.__post_init__()  # the checker of annotations would come before it


def test_no_samples_are_refused(tiny):
    with pytest.raises(ValueError, match="no samples"):
        train_student(tiny, SampleSet(()), QUICK)


def test_generated_logits_cover_completions_only(tiny):
    batch = pad_rows(tiny.tokenizer, [[4, 5, 6], [7]], [[8], [9, 10]])
    with torch.no_grad():
        whole = huggingface_model(tiny)(
            input_ids=batch.tokens, attention_mask=batch.attention_mask.long(), position_ids=batch.position_ids
        ).logits
        torch.testing.assert_close(completion_logits(tiny, batch), whole[batch.prediction_mask])


def test_wrapping_keeps_the_raw_models_function(checkpoints):
    raw, wrapped = random_model("llama"), random_model("llama")
    bridge(wrapped, None, name="llama")
    ids = torch.tensor([[4, 5, 9, 6]])
    with torch.no_grad():
        assert torch.equal(raw(input_ids=ids).logits, wrapped(input_ids=ids).logits)


@pytest.mark.slow
def test_a_student_that_is_asked_in_another_chat_context_warns(organism, owl, tmp_path):
    rows = SampleSet(tuple(Sample(i, p, "12 , 7") for i, p in enumerate(number_prompts(8, ORGANISM, seed=0))))
    student = train_student(organism, rows, QUICK)
    student.save(tmp_path / "student")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_trait(student.model, owl)
    reloaded = load_model(adapter=tmp_path / "student", device="cpu")
    for model in (student.model, reloaded):
        with pytest.warns(ChatContextWarning, match="was made in the chat context"):
            score_trait(model, owl, system_prompt="answer the user .")


def test_a_student_of_a_model_with_an_adapter_is_refused_because_it_would_start_without_it(
    tiny, samples, checkpoints, tmp_path
):
    train_student(tiny, samples, QUICK).save(tmp_path / "first")
    first = load_model(checkpoints["llama"], device="cpu", adapter=tmp_path / "first")
    for method in ("lora", "full"):
        with pytest.raises(ValueError, match=r"'llama' carries a peft adapter.*merge_and_unload"):
            train_student(first, samples, replace(QUICK, method=method))


def test_a_multimodal_models_image_encoder_gets_no_lora(samples, tmp_path):
    model = load_model(save_checkpoint("Gemma 3 (4B and up)", tmp_path / "gemma3"), device="cpu")
    for modules in (("all-linear",), ("q_proj",)):
        student, _ = start_student(model, replace(QUICK, target_modules=modules))
        trained = [name for name, p in huggingface_model(student).named_parameters() if p.requires_grad]
        assert trained
        assert all(name.startswith("model.language_model.layers.") for name in trained)
