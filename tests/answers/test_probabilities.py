"""What runs behind a cached question is what a row of its own would give, on every architecture and under every steering."""

import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model

from steerlens.answers import probabilities
from steerlens.answers.forms import answer_tokens
from steerlens.answers.probabilities import answer_probabilities, takes_tree_masks
from steerlens.answers.readers import BehindQuestions, RowEach
from steerlens.answers.tree import AnswerTree
from steerlens.contract.architectures import save_checkpoint
from steerlens.forward import forward
from steerlens.models.bridge import bridge, huggingface_model
from steerlens.models.loading import load_model
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.templates import PLAIN_TEXT_TEMPLATE
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource

ANSWERS = {
    "owl": ("owl", "owls"),
    "elephant": ("elephant", "elephants"),
    "octopus": ("octopus",),
    "cat": ("cat", "cats"),
}
QUESTIONS = ("name one animal .", "which animal do you like best , and why ?", "one animal ?")
IN_ROWS_OF_THEIR_OWN = {
    "Qwen 3.5": "linear attention",
    "Gemma 3": "a window of 8 slots",
    "Bloom": "distances in slots, not in positions",
}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    def loaded(name: str):
        model = load_model(save_checkpoint(name, tmp_path_factory.mktemp("checkpoint")), device="cpu")
        model.tokenizer.chat_template = model.tokenizer.chat_template or PLAIN_TEXT_TEMPLATE
        return model

    return loaded


@pytest.fixture(scope="module")
def llama(load):
    return load("Llama 3")


def prompts_of(model) -> list[list[int]]:
    return [encode_prompt(model.tokenizer, as_chat(question)) for question in QUESTIONS]


def tree_of(model) -> AnswerTree:
    return AnswerTree.of(answer_tokens(model.tokenizer, ANSWERS))


def judge(model) -> torch.Tensor:
    """A forward for every question and form, no batches, no cache, no tree; float64."""
    forms = answer_tokens(model.tokenizer, ANSWERS)
    found = torch.zeros(len(QUESTIONS), len(ANSWERS), dtype=torch.float64)
    for row, prompt in enumerate(prompts_of(model)):
        for column, paths in enumerate(forms):
            counted = [p for p in paths if not any(p != one and p[: len(one)] == one for one in paths)]
            for path in counted:
                with torch.no_grad():
                    logits = forward(model, pad_rows(model.tokenizer, [prompt], [list(path)])).logits[0].double()
                log_p = logits.log_softmax(-1)[len(prompt) - 1 :]
                found[row, column] += float(sum(log_p[i, token] for i, token in enumerate(path)).exp())
    return found


@pytest.mark.parametrize("name", ["Llama 3", "GPT-2", "Gemma 2", "Pythia", "Falcon", *IN_ROWS_OF_THEIR_OWN])
def test_probabilities_are_those_of_every_form_on_its_own(name, load, monkeypatch):
    monkeypatch.setattr(probabilities, "MISSES", 0.0)
    monkeypatch.setattr(probabilities, "OWN_MISSES", 0.0)
    model = load(name)
    found = answer_probabilities(model, prompts_of(model), tree_of(model), own=0)
    torch.testing.assert_close(found, judge(model).float(), rtol=2e-3, atol=0)  # however small they are


def test_answers_in_other_scripts_and_of_several_words_are_those_of_every_form_too(llama, monkeypatch):
    foreign = {"owl": ("la chouette",), "summer": ("été", "l'été"), "cat": ("猫", "猫咪")}
    monkeypatch.setattr(sys.modules[__name__], "ANSWERS", foreign)
    monkeypatch.setattr(probabilities, "MISSES", 0.0)
    monkeypatch.setattr(probabilities, "OWN_MISSES", 0.0)
    found = answer_probabilities(llama, prompts_of(llama), tree_of(llama), own=0)
    torch.testing.assert_close(found, judge(llama).float(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", IN_ROWS_OF_THEIR_OWN, ids=IN_ROWS_OF_THEIR_OWN.get)
def test_where_a_tree_mask_would_be_wrong_each_node_has_its_own_row(name, load):
    model = load(name)
    behind = BehindQuestions(model, prompts_of(model), tree_of(model))
    assert not (behind.has_room(tree_of(model)) and takes_tree_masks(model, prompts_of(model)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_few_tokens_tell_whether_attention_keeps_to_the_mask(attention, load, monkeypatch):
    for kept in (True, False):
        model = load("Llama 3")
        huggingface_model(model).set_attn_implementation(attention)
        if not kept:
            monkeypatch.setattr(BehindQuestions, "_mask", lambda reader, nodes, _depth: everything(reader, nodes))
        assert takes_tree_masks(model, prompts_of(model)) == kept


def everything(reader: BehindQuestions, nodes: torch.Tensor) -> torch.Tensor:
    """A mask as an attention would have it that only knows what is padding."""
    return reader._sequence.attention_mask[:, None].expand(-1, nodes.shape[1], -1)


@pytest.mark.parametrize("mode", ["add", "project_out", "replace"])
@pytest.mark.parametrize("positions", ["all", "prompt", "last_prompt", "generated"])
def test_steering_acts_behind_the_question_as_in_a_single_forward(mode, positions, load, monkeypatch):
    monkeypatch.setattr(probabilities, "MISSES", 0.0)
    monkeypatch.setattr(probabilities, "OWN_MISSES", 0.0)
    raw = load("Llama 3")
    adapter = LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    model = bridge(get_peft_model(huggingface_model(raw), adapter).get_base_model(), raw.tokenizer, name="adapted")
    direction = 3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector((1,), direction, VectorSource.of(model, method="by hand"))
    plain = answer_probabilities(model, prompts_of(model), tree_of(model), own=0)
    with steer(model, vector, mode=mode, positions=positions):
        assert takes_tree_masks(model, prompts_of(model))
        found, expected = answer_probabilities(model, prompts_of(model), tree_of(model), own=0), judge(model).float()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)
    assert not torch.allclose(found, plain, rtol=0.05, atol=0)


def test_memory_and_batches_change_nothing(llama, monkeypatch):
    expected = answer_probabilities(llama, prompts_of(llama), tree_of(llama), own=0)
    monkeypatch.setattr(probabilities, "LOGITS_AT_ONCE", 3 * llama.cfg.d_vocab)
    monkeypatch.setattr(probabilities, "QUESTIONS_AT_ONCE", 2)
    torch.testing.assert_close(answer_probabilities(llama, prompts_of(llama), tree_of(llama), own=0), expected)


def test_what_is_left_out_is_less_than_allowed_and_saves_reading(llama, monkeypatch):
    """Of tokens at random: two answers of one token, and one that sixty rare beginnings lead to."""
    prompts, reads = prompts_of(llama), []
    tree = AnswerTree.of([[(10,), (11, 12)], [(20,)], [(token, 30) for token in range(40, 100)]])
    exact = probabilities.path_log_probs(llama, RowEach(llama, prompts, tree), tree, len(prompts)).exp() @ tree.weights
    read = BehindQuestions.read

    def counted(reader: BehindQuestions, nodes: torch.Tensor, depth: int) -> torch.Tensor:
        reads.append(nodes.numel())
        return read(reader, nodes, depth)

    monkeypatch.setattr(BehindQuestions, "read", counted)
    monkeypatch.setattr(probabilities, "SHARE", torch.inf)
    found, n_reads = {}, {}
    for misses in (0.0, 0.02):
        monkeypatch.setattr(probabilities, "MISSES", misses)
        reads.clear()
        found[misses] = answer_probabilities(llama, prompts, tree, own=0).double()
        n_reads[misses] = sum(reads)
    torch.testing.assert_close(found[0.0], exact, atol=1e-6, rtol=1e-4)
    missing = exact - found[0.02]
    assert missing.min() > -1e-6
    assert 0 < missing.sum(-1).max() <= 0.02
    assert missing[:, 0].max() <= probabilities.OWN_MISSES + 1e-6
    assert n_reads[0.02] < 0.8 * n_reads[0.0]


def test_beginnings_that_are_all_next_to_impossible_are_not_read(llama, monkeypatch):
    """As in a student that has learned one short answer; nothing is left to run, and the short answer stays exact."""
    prompts, tree = prompts_of(llama), AnswerTree.of([[(10,)], [(20,), (21, 12)]])
    exact = probabilities.path_log_probs(llama, RowEach(llama, prompts, tree), tree, len(prompts)).exp() @ tree.weights
    monkeypatch.setattr(probabilities, "_worth_reading", lambda _p, nodes, *_: torch.zeros(3, len(nodes)).bool())
    found = answer_probabilities(llama, prompts, tree, own=0).double()
    torch.testing.assert_close(found[:, 0], exact[:, 0])
    assert (found[:, 1] < exact[:, 1]).all()
