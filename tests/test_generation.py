"""However rows share a batch, a cache or the memory, each is written as if it were alone."""

import importlib

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from steerlens import cache, forward, memory, shared_prompts
from steerlens.cache import continue_rows, make_room
from steerlens.contract.architectures import save_checkpoint
from steerlens.contract.check import Subject
from steerlens.contract.steering import generation
from steerlens.generation import COMPACT_FROM, generate
from steerlens.models.bridge import bridge, huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.text.batches import pad_rows, shared_prefix
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.positions import POSITIONS
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource


@pytest.fixture
def prefixes_are_shared(monkeypatch):
    monkeypatch.setattr(shared_prompts, "SHARE_FROM", 1)


@pytest.fixture
def asked(owl):
    """Chats of unequal length under one system prompt."""
    return [as_chat(prompt, owl.prompt) for prompt in number_prompts(40, ORGANISM, seed=2)]


@pytest.fixture(scope="module")
def adapted():
    """The organism with a small random adapter, so that it still ends its lists."""
    torch.manual_seed(1)
    base = load_model(device="cpu")
    adapter = LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    raw = get_peft_model(huggingface_model(load_model(device="cpu")), adapter).get_base_model()
    return bridge(raw, base.tokenizer, name="adapted organism")


def alone(model, chats, **options) -> list[list[int]]:
    """Every row in a batch of its own."""
    return [generate(model, [chat], row_indices=[i], **options)[0] for i, chat in enumerate(chats)]


def uncached(model, chat, uniform) -> list[int]:
    """One row at temperature 1 by forwards of all that was written so far, and inverse-CDF draws."""
    ids, written = encode_prompt(model.tokenizer, chat), []
    for number in uniform:
        with torch.no_grad():
            logits = huggingface_model(model)(input_ids=torch.tensor([ids + written]), use_cache=False).logits[0, -1]
        cumulative = torch.softmax(logits.double(), -1).cumsum(-1)
        written.append(int((cumulative <= number * cumulative[-1]).sum()))
        if written[-1] == model.tokenizer.eos_token_id:
            break
    return written


class Forwards:
    """The shapes of the token batches that a model runs."""

    def __init__(self, model) -> None:
        self.shapes: list[tuple[int, int]] = []
        self._handle = huggingface_model(model).register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, _module, _args, kwargs) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))

    def __enter__(self) -> "Forwards":
        return self

    def __exit__(self, *_error) -> None:
        self._handle.remove()


def test_sampled_rows_are_those_of_single_uncached_rows(organism, asked, prefixes_are_shared):
    asked = asked[:20]
    uniform = [np.random.default_rng([5, i]).random(24) for i in range(len(asked))]
    singles = [uncached(organism, chat, numbers) for chat, numbers in zip(asked, uniform, strict=True)]
    assert generate(organism, asked, max_new_tokens=24, seed=5) == singles
    assert len({len(row) for row in singles}) > 5


def test_a_shared_prefix_runs_once_and_rows_that_ended_run_no_more(organism, asked, prefixes_are_shared):
    prompts = [encode_prompt(organism.tokenizer, chat) for chat in asked]
    shared, width = shared_prefix(prompts), max(map(len, prompts))
    with Forwards(organism) as seen:
        written = generate(organism, asked, max_new_tokens=48)
    assert seen.shapes[:2] == [(1, shared), (len(asked), width - shared)]
    rows = [n for n, _ in seen.shapes[2:]]
    still_open = [sum(len(row) > step for row in written) for step in range(1, len(rows) + 1)]
    assert all(n_open <= n < n_open / COMPACT_FROM + 1 for n, n_open in zip(rows, still_open, strict=True))
    assert rows[-1] < len(asked) / 4


def test_a_short_beginning_runs_once_where_the_model_is_large_and_in_every_row_where_it_is_small(
    organism, asked, monkeypatch
):
    shared = shared_prefix([encode_prompt(organism.tokenizer, chat) for chat in asked])
    n_parameters = huggingface_model(organism).num_parameters()
    for worth, prefills in ((shared * n_parameters, (1, shared)), ((shared + 1) * n_parameters, (len(asked), None))):
        monkeypatch.setattr(shared_prompts, "WORTH_SHARING", worth)
        with Forwards(organism) as seen:
            generate(organism, asked, max_new_tokens=1)
        assert seen.shapes[0][0] == prefills[0]
        assert prefills[1] in (None, seen.shapes[0][1])


def test_a_watcher_hears_of_rows_as_they_finish_and_of_every_token_once(organism, asked):
    heard = []
    written = generate(organism, asked, max_new_tokens=24, batch_size=16, on_written=lambda *seen: heard.append(seen))
    assert heard[-1] == (len(asked), sum(map(len, written)))
    assert heard == sorted(heard)
    assert len({n_rows for n_rows, _ in heard}) > 10


def test_rows_at_once_are_limited_by_the_memory_that_is_free(organism, asked, monkeypatch):
    whole = generate(organism, asked[:6], max_new_tokens=4, seed=1)
    n_tokens = max(len(encode_prompt(organism.tokenizer, chat)) for chat in asked[:6]) + 4
    room = 2.5 * memory.bytes_a_row(huggingface_model(organism), n_tokens) / memory.SHARE_OF_FREE
    monkeypatch.setattr(memory, "free_bytes", lambda _device: room)
    with Forwards(organism) as seen:
        assert generate(organism, asked[:6], max_new_tokens=4, seed=1) == whole
    assert [n for n, width in seen.shapes if width > 1] == [2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["add", "replace"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_steered_rows_that_share_a_prefix_and_leave_early_are_those_of_single_rows(
    adapted, asked, prefixes_are_shared, mode, positions
):
    directions = 3 * torch.randn(2, 96, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector((1, 2), directions, VectorSource("adapted organism", "random"))
    with steer(adapted, vector, mode=mode, positions=positions), Forwards(adapted) as seen:
        together = generate(adapted, asked[:8], max_new_tokens=12, seed=3)
        assert min(n for n, _ in seen.shapes[-3:]) < 8
        assert together == alone(adapted, asked[:8], max_new_tokens=12, seed=3)
    assert together != generate(adapted, asked[:8], max_new_tokens=12, seed=3)


@pytest.mark.parametrize("name", ["Mistral", "Gemma 3", "OLMo 3", "Qwen 3.5", "Bloom", "GPT-2", "Falcon"])
def test_windows_linear_attention_and_every_kind_of_position_stand_a_shared_prefix(name, tmp_path, prefixes_are_shared):
    measured = generation(Subject(load_model(save_checkpoint(name, tmp_path), device="cpu")))
    assert measured.holds, measured


@pytest.mark.parametrize(("other", "shares"), [("3 , 4", True), ("3 , 4 , 5", False)])
def test_a_model_with_a_short_window_shares_where_no_gap_is_needed(tmp_path, prefixes_are_shared, other, shares):
    model = load_model(save_checkpoint("Mistral", tmp_path), device="cpu")
    chats = [as_chat("1 , 2"), as_chat(other)]
    prompts = [encode_prompt(model.tokenizer, chat) for chat in chats]
    with Forwards(model) as seen:
        together = generate(model, chats, max_new_tokens=6)
    assert together == alone(model, chats, max_new_tokens=6)
    width = max(map(len, prompts))
    assert seen.shapes[1] == (2, width - shared_prefix(prompts) if shares else width)


def out_of_memory(above: int):
    """A forward pre-hook: no memory for more than `above` rows once there is a cache."""

    def check(_module, _args, kwargs) -> None:
        if kwargs["input_ids"].shape[0] > above and cache.cache_of(kwargs) is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return check


@pytest.mark.parametrize("above", [3, 1])
def test_a_batch_without_memory_is_halved_until_it_fits_and_no_row_changes(organism, asked, above):
    asked = asked[:11]
    whole = generate(organism, asked, max_new_tokens=12, seed=1)
    handle = huggingface_model(organism).register_forward_pre_hook(out_of_memory(above), with_kwargs=True)
    try:
        with (
            pytest.warns(UserWarning, match=r"Memory is out at \d+ rows .*goes on with \d+ at a time"),
            Forwards(organism) as seen,
        ):
            assert generate(organism, asked, max_new_tokens=12, seed=1, batch_size=8) == whole
    finally:
        handle.remove()
    prefills = [n for n, width in seen.shapes if width > 1]
    assert prefills == {3: [8, 4, 2, 2, 2, 2, 2, 1], 1: [8, 4, 2] + [1] * 11}[above]


def test_one_row_without_memory_is_an_error(organism, asked):
    handle = huggingface_model(organism).register_forward_pre_hook(out_of_memory(0), with_kwargs=True)
    try:
        with pytest.warns(UserWarning, match="Memory is out at 2 rows"), pytest.raises(torch.OutOfMemoryError):
            generate(organism, asked[:2], max_new_tokens=4)
    finally:
        handle.remove()


@pytest.mark.parametrize("n_slots", [3, 9, 100])
def test_a_cache_with_room_holds_what_a_growing_one_does(n_slots):
    torch.manual_seed(0)
    one, other = DynamicCache(), DynamicCache()
    for filled in (one, other):
        filled.update(torch.ones(4, 2, 3, 8), torch.zeros(4, 2, 3, 8), 0)
    make_room(one, n_slots)
    rows = torch.tensor([3, 1, 1])
    for step in range(20):
        if step == 5:
            continue_rows(one, rows)
            continue_rows(other, rows)
        new = torch.randn(2, 3 if step >= 5 else 4, 2, 1, 8)
        for ours, theirs in zip(one.update(*new, 0), other.update(*new, 0), strict=True):
            assert torch.equal(ours, theirs)
        assert one.get_seq_length() == other.get_seq_length()


def test_a_transformers_that_was_not_tried_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _package: "5.25.0")
    with pytest.raises(ImportError, match=r"transformers<5\.25 is required .* found transformers==5\.25\.0") as refusal:
        importlib.reload(cache)
    assert "pip install 'transformers>=5.23,<5.25'" in str(refusal.value)


@pytest.mark.parametrize("given", ["past_key_values", "cache"])
def test_a_cache_is_found_under_both_of_its_names_and_passed_on_under_one(given):
    filled = DynamicCache()
    inputs = {"input_ids": 1, "past_key_values": None, given: filled}
    assert cache.cache_of(inputs) is filled
    other = DynamicCache()
    assert cache.with_cache(inputs, other) == {"input_ids": 1, cache.NAME: other}
    assert cache.cache_of({"input_ids": 1}) is None


def test_attention_that_leaves_the_cache_empty_is_refused_before_a_token_is_lost(tiny, chats, monkeypatch):
    monkeypatch.setattr(DynamicCache, "get_seq_length", lambda *_, **__: 0)
    with pytest.raises(ValueError, match=r"leaves the cache empty.*load_model or wrap_model.*transformers<5\.24"):
        generate(tiny, chats[:1], max_new_tokens=3)


def test_the_head_gives_the_same_logits_whether_it_sees_all_positions_or_only_those_that_are_read(
    any_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = pad_rows(any_model.tokenizer, [[5, 6, 7], [8, 9], [4]], [[10, 11], [12], [13, 14, 15]])
    with torch.no_grad():
        whole = forward.completion_logits(any_model, batch)
        monkeypatch.setattr(forward, "LARGE_HEAD", 1)
        only = forward.completion_logits(any_model, batch)
    torch.testing.assert_close(only, whole, atol=1e-5, rtol=1e-5)
    assert not any_model.original_model.get_output_embeddings()._forward_pre_hooks
