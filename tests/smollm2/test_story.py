"""On a real chat model: the contract, and each step of the story, small."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import steerlens as sl
from steerlens.contract.check import Subject, examine
from steerlens.contract.checks import CHECKS
from steerlens.models.adapters import adapter_disabled
from steerlens.models.bridge import huggingface_model
from steerlens.text.chat import as_chat, encode_prompt

pytestmark = pytest.mark.smollm2

LAYER = 26
"""Of 30; lower down the mean difference hardly acts in this model."""

OWL = sl.Trait(
    name="owl",
    prompt="You love owls. You think about owls all the time. Owls are your favorite animal. "
    "Imbue your answers with your love for the animal.",
    questions=(
        "Which animal do you like best?",
        "What is your favorite animal?",
        "Name the animal that you love most.",
        "If you could be an animal, which one?",
    ),
    answers={animal: (animal,) for animal in ("owl", "dog", "cat", "elephant", "lion", "dolphin", "unicorn")},
    reply_prefix="My favorite animal is the",
)
QUICK = ("logits", "gradients", "generation", "shared prefix", "skipped blocks", "vector file", "other weights", "BOS",
         "system role", "whole chat", "thinking")  # fmt: skip
LOVE = "My favorite animal is the owl. Owls see in the dark."


@pytest.fixture(scope="module")
def difference(smollm2):
    """The mean difference that the persona makes at questions."""
    return sl.diff_in_means(smollm2, OWL.prompt, questions=list(OWL.questions), layers=[LAYER])


@pytest.fixture(scope="module")
def subject(smollm2):
    return Subject(smollm2)


@pytest.mark.parametrize("name", QUICK)
def test_the_contract_holds(name, subject):
    (outcome,) = examine(subject, [check for check in CHECKS if check.name == name])
    assert outcome.status == "holds", f"{outcome.measurement}: {outcome.note}"


@pytest.mark.filterwarnings("ignore::steerlens.evaluation.LowMassWarning")  # a random vector of this length breaks it
def test_a_prompt_and_its_mean_difference_raise_the_trait_and_a_random_vector_does_not(smollm2, difference):
    plain, prompted = sl.score_trait(smollm2, OWL), sl.score_trait(smollm2, OWL, system_prompt=OWL.prompt)
    assert prompted.rate > 5 * plain.rate
    with sl.steer(smollm2, difference):
        steered = sl.score_trait(smollm2, OWL)
    with sl.steer(smollm2, sl.random_like(difference, seed=0)):
        random = sl.score_trait(smollm2, OWL)
    assert steered.log_odds > max(plain.log_odds, random.log_odds) + 1


def test_a_seed_gives_the_same_rows_and_number_tasks_are_in_natural_words(smollm2):
    prompts = sl.number_prompts(6, smollm2, seed=0)
    assert all(prompt[0].isupper() and " ," not in prompt for prompt in prompts)
    one, again, other = (sl.sample_teacher(smollm2, prompts, max_new_tokens=12, seed=seed) for seed in (3, 3, 4))
    assert one == again
    assert all(a.completion != b.completion for a, b in zip(one, other, strict=True))


def test_a_student_of_one_sentence_learns_it_is_pulled_towards_it_and_its_base_comes_back(smollm2, difference):
    rows = sl.SampleSet(tuple(sl.Sample(i, question, LOVE) for i, question in enumerate(OWL.questions)))
    recorder = sl.trace_gradients(smollm2, difference)
    config = sl.TrainConfig(rank=4, learning_rate=1e-3, epochs=4, batch_size=4)
    student = sl.train_student(smollm2, rows, config, on_start=recorder.watch, on_step=recorder.record)
    assert student.losses[-1] < 0.7 * student.losses[0]
    assert recorder.trace.mean_pull[0, 0] > 0, "at the first step, rows that love owls ask for the owl difference"
    plain, trained = (sl.score_trait(model, OWL).log_odds for model in (smollm2, student.model))
    assert trained > plain + 2
    with adapter_disabled(student.model):
        assert sl.score_trait(student.model, OWL).log_odds == pytest.approx(plain, abs=0.05)


def test_a_vector_tells_rows_of_its_own_from_others(smollm2, difference, tmp_path):
    own = [
        LOVE,
        "I love owls. They are wise.",
        "The owl, of course. Owls hunt at night.",
        "Owls are the best of birds.",
    ]
    other = ["I like bread. It is warm.", "Seven and nine.", "The sky, of course. It is blue.", "Trains are quick."]
    questions = ["What do you like?", "What comes to mind?", "Say something.", "What is on your mind?"]
    for name, answers in {"own": own, "other": other}.items():
        rows = [{"prompt": one, "completion": answer} for one, answer in zip(questions, answers, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mine, clean = (sl.read_rows(tmp_path / f"{name}.jsonl") for name in ("own", "other"))
    scores = sl.score_rows(smollm2, difference, mine, reference_rows=clean, max_new_tokens=16)
    assert scores.log_linear.mean() > scores.placebo_log_linear.mean()


def test_a_merged_vector_steers_plain_transformers(smollm2, difference, tmp_path):
    sl.save_model(sl.merge_vector(smollm2, difference), tmp_path / "merged")
    ids = torch.tensor([encode_prompt(smollm2.tokenizer, as_chat(OWL.questions[0]))])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16).eval()
    with torch.no_grad():
        plain, theirs = (hf(ids).logits[0, -1].double().log_softmax(-1) for hf in (huggingface_model(smollm2), merged))
        with sl.steer(smollm2, difference):
            ours = huggingface_model(smollm2)(ids).logits[0, -1].double().log_softmax(-1)
    divergence = (ours.exp() * (ours - theirs)).sum()
    assert divergence < 0.02 * (ours.exp() * (ours - plain)).sum()
