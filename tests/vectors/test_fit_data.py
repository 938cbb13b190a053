"""A fit's rows: the prompt run once is the prompt run in full, and no question serves two purposes."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from steerlens.forward import completion_logits
from steerlens.generation import generate
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.text.batches import pad_rows, shared_prefix
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.positions import POSITIONS
from steerlens.vectors import fit_data, objectives
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRow, _asked, _run_prompted
from steerlens.vectors.interventions import steer
from steerlens.vectors.objectives import Targets
from steerlens.vectors.vector import SteeringVector, VectorSource

PROMPT = "you love owls . you think about owls all the time ."
CONFIG = FitConfig(n_train=6, n_validation=4, n_heldout=4, max_new_tokens=5, batch_size=4)


def rows_of(model) -> list[FitRow]:
    """Prompts and completions of unequal length, also one that is a single token."""
    questions = [*number_prompts(4, ORGANISM, seed=3), "name a tree ."]
    completions = [[9, 10, 11, 12], [9], [30, 31, 32, 33, 34, 35], [40, 41], [50, 51, 52]]
    return [
        FitRow(i, encode_prompt(model.tokenizer, as_chat(q, PROMPT)), encode_prompt(model.tokenizer, as_chat(q)), c)
        for i, (q, c) in enumerate(zip(questions, completions, strict=True))
    ]


@torch.no_grad()
def one_by_one(model, rows: list[FitRow]) -> torch.Tensor:
    """Logits at completion tokens by Hugging Face's own forward, each row alone, without cache or padding."""
    logits = []
    for row in rows:
        ids = torch.tensor([row.prompted + row.completion])
        whole = huggingface_model(model)(input_ids=ids, use_cache=False).logits[0]
        logits.append(whole[len(row.prompted) - 1 : -1])
    return torch.cat(logits)


@torch.no_grad()
def test_the_prompt_run_once_gives_the_logits_of_the_prompt_run_in_full(any_model, monkeypatch):
    rows = rows_of(any_model)
    assert len({len(row.prompted) for row in rows}) > 2
    prefixes = []
    after = fit_data.completion_logits_after

    def spied(model, prefix, batch):
        prefixes.append(prefix)
        return after(model, prefix, batch)

    monkeypatch.setattr(fit_data, "completion_logits_after", spied)
    ours = _run_prompted(any_model, rows)[0]
    assert len(prefixes[0]) > 5
    torch.testing.assert_close(ours, one_by_one(any_model, rows), atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_sliding_window_shorter_than_the_prompt_changes_nothing(checkpoints, tmp_path):
    model = load_model(checkpoints["gemma2"], device="cpu")
    shutil.copytree(checkpoints["gemma2"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": 7}))
    short = load_model(tmp_path, device="cpu")
    rows = rows_of(short)
    assert not torch.allclose(one_by_one(short, rows), one_by_one(model, rows), atol=1e-2)
    torch.testing.assert_close(_run_prompted(short, rows)[0], one_by_one(short, rows), atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_steered_teacher_is_steered_in_every_token_that_positions_names(tiny, positions):
    rows = rows_of(tiny)
    vector = SteeringVector((1,), torch.ones(1, tiny.cfg.d_model), VectorSource("llama", "by hand"))
    with steer(tiny, vector, positions=positions):
        ours = _run_prompted(tiny, rows)[0]
        batch = pad_rows(tiny.tokenizer, [row.prompted for row in rows], [row.completion for row in rows])
        torch.testing.assert_close(ours, completion_logits(tiny, batch), atol=2e-4, rtol=1e-4)
    assert not torch.allclose(ours, _run_prompted(tiny, rows)[0], atol=1e-2)


def test_rows_that_share_everything_or_nothing_are_run_too(tiny):
    same = [FitRow(i, [2, 4, 5, 6], [2, 6], [9, 10 + i]) for i in range(3)]
    other = [FitRow(i, [2 + i, 4, 5, 6], [2, 6], [9]) for i in range(3)]
    for rows in (same, other):
        with torch.no_grad():
            torch.testing.assert_close(_run_prompted(tiny, rows)[0], one_by_one(tiny, rows), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_the_shared_prefix_is_the_longest_that_all_rows_begin_with(seed):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 2, rng.integers(1, 8)).tolist() for _ in range(rng.integers(1, 5))]
    shared = shared_prefix(rows)
    assert len({tuple(row[:shared]) for row in rows}) == 1
    assert any(len(row) == shared for row in rows) or len({row[shared] for row in rows}) > 1


SIZES = [(1, 1, 1), (1, 1, 1000), (1, 500, 500), (1000, 1, 1), (6, 4, 4), (768, 96, 192), (7, 1, 90), (2, 300, 1)]


@pytest.mark.parametrize("sizes", SIZES)
def test_no_question_is_in_two_parts_however_few_there_are(sizes):
    config = FitConfig(n_train=sizes[0], n_validation=sizes[1], n_heldout=sizes[2])
    n_rows = config.n_rows
    for n_questions in sorted({*range(3, 40), n_rows // 2, n_rows - 1, n_rows, n_rows + 1, 3 * n_rows}):
        if n_questions < 3:
            continue
        asked = _asked(n_questions, config)
        assert tuple(map(len, asked)) == sizes
        for one, other in itertools.combinations(map(set, asked), 2):
            assert not one & other, (sizes, n_questions)
        assert set().union(*asked) <= set(range(n_questions))
        for part in asked:
            times = np.bincount(part)
            times = times[times > 0]
            assert times.max() - times.min() <= 1
        if n_questions >= n_rows:
            assert all(len(set(part)) == len(part) for part in asked)


@pytest.mark.parametrize("n_questions", [3, 4, 13, 14, 50])
def test_the_rows_that_are_made_share_no_question_either(tiny, n_questions):
    questions = number_prompts(n_questions, ORGANISM, seed=4)
    data = FitData.sample(tiny, PROMPT, [*questions, *questions], CONFIG)
    parts = (data.train, data.validation, data.heldout)
    numbered = [{question for batch in part for question in batch.questions} for part in parts]
    seen = [{text(tiny, batch, row) for batch in part for row in range(len(batch.batch))} for part in parts]
    for sets in (numbered, seen):
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]
    assert [sum(len(batch.batch) for batch in part) for part in parts] == [6, 4, 4]
    assert {text(tiny, batch, row) for batch in data.train for row in range(len(batch.batch))} == {
        tiny.tokenizer.decode(encode_prompt(tiny.tokenizer, as_chat(question))) for question in data.train_questions
    }


def text(model, rows, index: int) -> str:
    return model.tokenizer.decode(rows.batch.tokens[index][rows.batch.prompt_mask[index]])


def test_every_target_is_the_prompted_models_prediction_at_its_own_token(any_model):
    """By hand, from the rows' tokens alone: prompt the completion anew, and read the distribution before each token."""
    data = FitData.sample(any_model, PROMPT, number_prompts(20, ORGANISM, seed=5), CONFIG)
    questions = {
        any_model.tokenizer.decode(encode_prompt(any_model.tokenizer, as_chat(q))): q
        for q in number_prompts(20, ORGANISM, seed=5)
    }
    batch = data.validation[0]
    expected, tokens, owner = [], [], []
    for row in range(len(batch.batch)):
        prompted = encode_prompt(any_model.tokenizer, as_chat(questions[text(any_model, batch, row)], PROMPT))
        completion = batch.batch.tokens[row][batch.batch.completion_mask[row]].tolist()
        expected.append(one_by_one(any_model, [FitRow(0, prompted, [], completion)]).log_softmax(-1))
        tokens += completion
        owner += [row] * len(completion)
    torch.testing.assert_close(batch.targets.log_probs, torch.cat(expected), atol=2e-4, rtol=1e-4)
    assert batch.targets.sampled.tolist() == tokens
    assert batch.row_of_token.tolist() == owner


def test_completions_are_the_prompted_models_own(tiny):
    questions = number_prompts(14, ORGANISM, seed=5)
    data = FitData.sample(tiny, PROMPT, questions, CONFIG)
    shuffled = [questions[i] for i in np.random.default_rng(CONFIG.seed).permutation(len(questions))]
    own = generate(tiny, [as_chat(q, PROMPT) for q in shuffled], max_new_tokens=5, seed=CONFIG.seed)
    for part in (data.train, data.validation, data.heldout):
        for batch in part:
            for row, question in enumerate(batch.questions):
                assert batch.batch.tokens[row][batch.batch.completion_mask[row]].tolist() == own[question]


def test_coarsening_is_the_share_of_the_prompts_kl_that_the_kept_tokens_hide(tiny, monkeypatch):
    questions = number_prompts(14, ORGANISM, seed=5)
    whole = FitData.sample(tiny, PROMPT, questions, CONFIG)
    assert whole.coarsening == 0
    with torch.no_grad():
        plain = completion_logits(tiny, whole.heldout[0].batch).log_softmax(-1)
    target = whole.heldout[0].targets.log_probs
    full = float((target.exp() * (target - plain)).sum())
    monkeypatch.setattr(objectives, "WHOLE_VOCABULARY", 2)
    shares = []
    for top_k in (3, 30, 300):
        data = FitData.sample(tiny, PROMPT, questions, replace(CONFIG, top_k=top_k))
        kept = target.topk(top_k).indices
        p, q = (
            torch.cat([x.exp().gather(-1, kept), x.exp().scatter(-1, kept, 0).sum(-1, keepdim=True)], -1)
            for x in (target, plain)
        )
        assert data.coarsening == pytest.approx(1 - float((p * (p / q).log()).sum()) / full, abs=1e-4)
        shares.append(data.coarsening)
        assert isinstance(data.train[0].targets, Targets)
        assert data.train[0].targets.kept is not None
    assert 1 > shares[0] > shares[1] > shares[2] > 0
