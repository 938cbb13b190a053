"""Whatever way Hugging Face generates, the tokens that are named are steered: a plain model, edited by hand, agrees."""

import copy
import functools
import threading
import warnings
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache, TextIteratorStreamer, pipeline

from steerlens.contract.architectures import save_checkpoint
from steerlens.models.bridge import bridge, huggingface_model
from steerlens.models.loading import load_model
from steerlens.residuals.stream import watch_residuals
from steerlens.text.positions import POSITIONS
from steerlens.vectors.interventions import steer
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

FAMILIES = ("Llama 3", "GPT-2", "Gemma 2", "Gemma 3", "Mistral")
LAYER, N_NEW, STATIC = 1, 6, 64


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: save_checkpoint(name, root / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def case_of(families):
    """The case of a family, for tests that leave its models as they are: made once."""
    return functools.cache(lambda family: Case(families[family]))


class Case:
    """A bridge, the same model untouched, and a vector."""

    def __init__(self, directory) -> None:
        self.model = load_model(directory, device="cpu")
        self.hf = huggingface_model(self.model)
        self.plain = AutoModelForCausalLM.from_pretrained(directory).eval()
        direction = 4 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
        self.vector = SteeringVector((LAYER,), direction, VectorSource.of(self.model, method="random"))

    def judge(self, row: torch.Tensor, steered: torch.Tensor) -> torch.Tensor:
        """Logits of one uncached forward of a row without padding, edited by hand where `steered` is true."""

        def edit(_module, _inputs, output):
            resid = output[0] if isinstance(output, tuple) else output
            moved = resid + steered[None, :, None] * self.vector.directions[0]
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        blocks = next(module for module in self.plain.modules() if isinstance(module, torch.nn.ModuleList))
        handle = blocks[LAYER].register_forward_hook(edit)
        try:
            with torch.no_grad():
                return self.plain(input_ids=row[None], use_cache=False).logits[0]
        finally:
            handle.remove()

    def generate(self, ids=None, **options):
        """Hugging Face's own, with the logits of every step."""
        usual = {"max_new_tokens": N_NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        return self.hf.generate(input_ids=ids, **{**usual, **options}, return_dict_in_generate=True, output_logits=True)

    def check(self, out, attended, positions, *, n_cached=0, cached=()) -> None:
        """Every row's logits are the judge's. Of the first `n_cached` slots, those in `cached` were steered before."""
        width, logits = attended.shape[1], torch.stack(out.logits, dim=1)
        attended = attended.repeat_interleave(len(out.sequences) // len(attended), dim=0).bool()
        for row, prompt, ours in zip(out.sequences, attended, logits):
            real = torch.nn.functional.pad(prompt, (0, len(row) - width), value=True)
            steered = slots(positions, width, len(row))
            steered[:n_cached] = False
            steered[list(cached)] = True
            theirs = self.judge(row[real], steered[real])[-len(ours) - 1 : -1]
            torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)
            assert not torch.allclose(ours, self.judge(row[real], ~steered[real])[-len(ours) - 1 : -1], atol=0.1)


def slots(positions: str, width: int, n: int) -> torch.Tensor:
    """What `positions` names among `n` slots, of which the prompt is the first `width`."""
    slot = torch.arange(n)
    named = {"all": slot >= 0, "prompt": slot < width, "last_prompt": slot == width - 1, "generated": slot >= width}
    return named[positions]


def tokens(n_rows: int, width: int, seed: int = 0, pads: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(20, 300, (n_rows, width), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    for row, n in enumerate(pads):
        ids[row, :n], mask[row, :n] = 0, 0
    return ids, mask


WAYS = {
    "with a cache": {},
    "without a cache": {"use_cache": False},
    "in chunks of three": {"prefill_chunk_size": 3},
    "in chunks of one": {"prefill_chunk_size": 1},
    "with a static cache": {"cache_implementation": "static"},
    "with a static cache in chunks": {"cache_implementation": "static", "prefill_chunk_size": 4},
    "several sequences": {"do_sample": True, "num_return_sequences": 2},
    "several sequences in chunks": {"do_sample": True, "num_return_sequences": 2, "prefill_chunk_size": 4},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_prompts_are_steered_where_they_are_said_to_be(case_of, family, way):
    case = case_of(family)
    ids, mask = tokens(2, 11, pads=(4, 0))
    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            out = case.generate(ids, attention_mask=mask, **WAYS[way])
        case.check(out, mask, positions)


@pytest.mark.parametrize("passes_cache_on", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_chat_that_grows_every_call_has_a_prompt_of_its_own(case_of, family, passes_cache_on):
    case = case_of(family)
    for positions in POSITIONS:
        ids, mask = tokens(2, 7, pads=(2, 0))
        n_cached, cached, cache = 0, set(), None
        with steer(case.model, case.vector, positions=positions):
            for turn in range(3):
                cache = (cache or DynamicCache(config=case.hf.config.get_text_config())) if passes_cache_on else None
                out = case.generate(ids, attention_mask=mask, past_key_values=cache)
                case.check(out, mask, positions, n_cached=n_cached, cached=cached)
                if passes_cache_on:
                    held = slots(positions, ids.shape[1], cache.get_seq_length()).nonzero()[:, 0].tolist()
                    cached |= {slot for slot in held if slot >= n_cached}
                    n_cached = cache.get_seq_length()
                ids = torch.cat([out.sequences, tokens(2, 3, seed=turn)[0]], dim=1)
                mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["Llama 3", "Gemma 3", "Mistral"])
def test_behind_a_prompt_cache_the_rest_of_the_prompt_is_prompt(families, family, kind):
    case = Case(families[family])
    config = case.hf.config.get_text_config()
    prefix, _ = tokens(1, 5)
    for positions in POSITIONS:
        filled = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=STATIC)
        with torch.no_grad():
            case.hf(input_ids=prefix, past_key_values=filled)
        with steer(case.model, case.vector, positions=positions):
            for seed, n_new in enumerate((4, 1, 7)):
                ids = torch.cat([prefix, tokens(1, n_new, seed)[0]], dim=1)
                whole = {"attention_mask": torch.ones_like(ids), "past_key_values": copy.deepcopy(filled)}
                out = case.generate(ids, **whole, prefill_chunk_size=3 if n_new == 7 else None)
                case.check(out, torch.ones_like(ids), positions, n_cached=5)


def test_only_the_new_tokens_may_be_passed_with_a_mask_of_all(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(1, 9)
    for positions in POSITIONS:
        with torch.no_grad():
            cache = case.hf(input_ids=ids[:, :5], use_cache=True).past_key_values
        with steer(case.model, case.vector, positions=positions):
            out = case.generate(ids[:, 5:], attention_mask=mask, past_key_values=cache)
        out.sequences = torch.cat([ids[:, :5], out.sequences], dim=1)
        case.check(out, mask, positions, n_cached=5)


def test_a_cache_that_is_filled_inside_was_steered_as_a_prompt(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(1, 9)
    for positions in ("all", "prompt", "generated"):
        with torch.no_grad(), steer(case.model, case.vector, positions=positions):
            cache = case.hf(input_ids=ids[:, :5], use_cache=True).past_key_values
            out = case.generate(ids, attention_mask=mask, past_key_values=copy.deepcopy(cache))
        case.check(out, mask, positions)
    with torch.no_grad(), steer(case.model, case.vector, positions="last_prompt"):
        cache = case.hf(input_ids=ids[:, :5], use_cache=True).past_key_values
        with pytest.raises(ValueError, match=r"filled inside this `steer`.*Fill the cache before the `with`"):
            case.generate(ids, attention_mask=mask, past_key_values=copy.deepcopy(cache))


HELP = {
    "prompt lookup": lambda case: {"prompt_lookup_num_tokens": 3},
    "an assistant": lambda case: {"assistant_model": copy.deepcopy(case.plain)},
    "itself": lambda case: {"assistant_model": case.hf},
}


@pytest.mark.parametrize("help", HELP)
@pytest.mark.parametrize("family", ["Llama 3", "Gemma 3"])
def test_several_tokens_that_are_checked_at_once_are_generated_ones(families, family, help):
    case = Case(families[family])
    ids, mask = tokens(1, 4)
    ids, mask = ids.repeat(1, 3), mask.repeat(1, 3)  # what repeats is found by prompt lookup
    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            out = case.generate(ids, attention_mask=mask, max_new_tokens=12, **HELP[help](case))
        case.check(out, mask, positions)


@pytest.mark.parametrize("family", ["Llama 3", "Gemma 2"])
def test_beams_are_scored_by_the_steered_model(families, family):
    case = Case(families[family])
    ids, mask = tokens(2, 9, pads=(3, 0))
    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            out = case.hf.generate(
                input_ids=ids, attention_mask=mask, num_beams=3, num_return_sequences=2, length_penalty=0.0, output_scores=True,
                max_new_tokens=N_NEW, do_sample=False, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
            )  # fmt: skip
        for row, attended, score in zip(out.sequences, mask.repeat_interleave(2, dim=0).bool(), out.sequences_scores):
            real = torch.nn.functional.pad(attended, (0, N_NEW), value=True)
            logits = case.judge(row[real], slots(positions, 9, len(row))[real])[-N_NEW - 1 : -1]
            theirs = logits.log_softmax(-1).gather(-1, row[-N_NEW:, None]).sum()
            torch.testing.assert_close(score, theirs, atol=1e-3, rtol=1e-4)


def test_embeddings_as_a_prompt(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(2, 9, pads=(3, 0))
    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            out = case.generate(inputs_embeds=case.hf.get_input_embeddings()(ids), attention_mask=mask)
        out.sequences = torch.cat([ids, out.sequences], dim=1)
        case.check(out, mask, positions)


@pytest.mark.parametrize("use_past_kv_cache", [True, False])
def test_generate_of_transformer_lens_is_noticed_too(families, use_past_kv_cache):
    case = Case(families["Llama 3"])
    ids, mask = tokens(2, 9)
    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            out = case.model.generate(
                ids, max_new_tokens=N_NEW, do_sample=False, stop_at_eos=False, output_logits=True, verbose=False,
                use_past_kv_cache=use_past_kv_cache,
            )  # fmt: skip
        case.check(out, mask, positions)


def test_a_loop_by_hand_generates_one_token_at_a_time(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(1, 9)
    for positions in POSITIONS:
        with torch.no_grad(), steer(case.model, case.vector, positions=positions):
            out = case.hf(input_ids=ids)
            written, logits = ids, [out.logits[:, -1]]
            for _ in range(N_NEW - 1):
                written = torch.cat([written, logits[-1].argmax(-1, keepdim=True)], dim=1)
                out = case.hf(written[:, -1:], past_key_values=out.past_key_values)
                logits.append(out.logits[:, -1])
        written = torch.cat([written, logits[-1].argmax(-1, keepdim=True)], dim=1)
        case.check(SimpleNamespace(sequences=written, logits=logits), mask, positions)


def test_a_forward_that_goes_on_by_several_tokens_is_steered_at_all_of_them_or_refused(families):
    case = Case(families["Llama 3"])
    ids, _ = tokens(1, 9)
    for positions in POSITIONS:
        with torch.no_grad():
            cache = case.hf(input_ids=ids[:, :5], use_cache=True).past_key_values
        with torch.no_grad(), steer(case.model, case.vector, positions=positions):
            if positions != "all":
                with pytest.raises(ValueError, match="continues a cache by 4 tokens, so that nobody can tell"):
                    case.hf(input_ids=ids[:, 5:], past_key_values=cache)
                continue
            ours = case.hf(input_ids=ids[:, 5:], past_key_values=cache).logits[0]
        theirs = case.judge(ids[0], torch.arange(9) >= 5)[5:]
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_the_same_tokens_again_and_more_are_a_prompt_outside_generate(families):
    case = Case(families["Llama 3"])
    ids, _ = tokens(1, 9)
    for positions in POSITIONS:
        with torch.no_grad(), steer(case.model, case.vector, positions=positions):
            for n in (6, 7, 9):
                ours = case.hf(input_ids=ids[:, :n], use_cache=False).logits[0]
                theirs = case.judge(ids[0, :n], slots(positions, n, n))
                torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_packed_sequences_are_refused_where_positions_cannot_be_told(families):
    case = Case(families["Llama 3"])
    ids, _ = tokens(1, 9)
    packed = {"cu_seq_lens_q": torch.tensor([0, 4, 9])}
    with steer(case.model, case.vector, positions="prompt"), pytest.raises(ValueError, match="packs several sequences"):
        case.hf(input_ids=ids, **packed)


def test_generation_in_a_thread_is_noticed_with_a_streamer(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(1, 9)
    for positions in POSITIONS:
        found = []
        streamer = TextIteratorStreamer(case.model.tokenizer)
        with steer(case.model, case.vector, positions=positions):
            thread = threading.Thread(
                target=lambda streamer=streamer, found=found: found.append(
                    case.generate(ids, attention_mask=mask, streamer=streamer)
                )
            )
            thread.start()
            list(streamer)
            thread.join()
        case.check(found[0], mask, positions)


def test_a_pipeline_that_was_made_before_is_steered(families):
    case = Case(families["Llama 3"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its generation config
        write = pipeline("text-generation", model=case.hf, tokenizer=case.model.tokenizer)
        text = "owl eagle 7 , 8"
        options = {"max_new_tokens": 5, "do_sample": False, "return_tensors": True}
        ids = case.model.tokenizer(text, return_tensors="pt").input_ids
        for positions in POSITIONS:
            with steer(case.model, case.vector, positions=positions):
                (one,) = write(text, **options)
            row = torch.tensor(one["generated_token_ids"])
            logits = case.judge(row, slots(positions, ids.shape[1], len(row)))
            assert torch.equal(logits[ids.shape[1] - 1 : -1].argmax(-1), row[ids.shape[1] :])


def test_the_models_own_generate_is_back_in_whatever_order_steering_ends(families):
    case = Case(families["Llama 3"])
    one, two = (steer(case.model, case.vector, positions=positions) for positions in ("all", "prompt"))
    before = case.hf.generate
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    ids, mask = tokens(1, 9)
    case.check(case.generate(ids, attention_mask=mask, prefill_chunk_size=4), mask, "prompt")
    two.__exit__(None, None, None)
    assert case.hf.generate == before
    assert "generate" not in case.hf.__dict__
    assert "generate" not in case.model.__dict__


def test_another_models_generate_inside_one_is_told_apart(families):
    """A logits processor that runs the steered model on a prompt of its own, while another one generates."""
    case = Case(families["Llama 3"])
    ids, _ = tokens(1, 9)
    seen = []

    def processor(_ids, scores):
        seen.append(case.hf(input_ids=ids, use_cache=False).logits[0])
        return scores

    with torch.no_grad(), steer(case.model, case.vector, positions="last_prompt"):
        case.plain.generate(input_ids=ids[:, :4], max_new_tokens=2, logits_processor=[processor], pad_token_id=0)
    for logits in seen:
        torch.testing.assert_close(logits, case.judge(ids[0], slots("last_prompt", 9, 9)), atol=2e-3, rtol=1e-3)
    assert len(seen) == 2


def test_a_copy_that_is_made_inside_is_steered_by_itself(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(1, 9)
    original = case.hf
    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            case.hf = copy.deepcopy(original)
        case.check(case.generate(ids, attention_mask=mask), mask, positions)
        with torch.no_grad():
            original(input_ids=tokens(3, 4)[0])
            ours = case.hf(input_ids=ids).logits[0]
        torch.testing.assert_close(ours, case.judge(ids[0], slots(positions, 9, 9)), atol=2e-3, rtol=1e-3)


ADAPTED = {
    **{name: WAYS[name] for name in ("with a cache", "in chunks of three", "with a static cache", "without a cache")},
    "beams": {"num_beams": 3},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("way", ADAPTED)
@pytest.mark.parametrize("family", ["Llama 3", "Gemma 3"])
def test_replacing_keeps_the_base_in_step(families, family, way):
    """The judge is a single uncached forward, in which the base runs the same tokens."""
    model = adapted(families[family])
    hf, vector = huggingface_model(model), random_vector(model)
    ids, mask = tokens(1, 12) if way == "prompt lookup" else tokens(2, 12, pads=(4, 0))
    for positions in ("all", "prompt"):
        with steer(model, vector, mode="replace", positions=positions):
            out = hf.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=N_NEW, do_sample=False, eos_token_id=None, pad_token_id=0,
                return_dict_in_generate=True, output_scores=True, output_logits=True, length_penalty=0.0, **ADAPTED[way],
            )  # fmt: skip
            again = hf.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=N_NEW, do_sample=False, eos_token_id=None, pad_token_id=0,
                return_dict_in_generate=True, output_scores=True, output_logits=True, length_penalty=0.0, use_cache=False,
                num_beams=ADAPTED[way].get("num_beams", 1),
            )  # fmt: skip
        assert torch.equal(out.sequences, again.sequences)
        if way == "beams":
            torch.testing.assert_close(out.sequences_scores, again.sequences_scores, atol=1e-3, rtol=1e-3)
        else:
            torch.testing.assert_close(torch.stack(out.logits), torch.stack(again.logits), atol=2e-3, rtol=1e-3)


def adapted(directory):
    torch.manual_seed(1)
    raw = AutoModelForCausalLM.from_pretrained(directory)
    raw = get_peft_model(raw, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).get_base_model()
    return bridge(raw, load_model(directory, device="cpu").tokenizer, name="adapted")


def random_vector(model) -> SteeringVector:
    direction = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((LAYER,), direction, VectorSource.of(model, method="random"))


def test_the_base_goes_with_a_cache_that_is_passed_on_or_copied(families):
    model = adapted(families["Llama 3"])
    hf, vector = huggingface_model(model), random_vector(model)
    prefix, _ = tokens(1, 5)
    options = {"max_new_tokens": N_NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad(), steer(model, vector, mode="replace"):
        cache = hf(input_ids=prefix, use_cache=True).past_key_values
        for seed in (1, 2):
            ids = torch.cat([prefix, tokens(1, 4, seed)[0]], dim=1)
            behind = copy.deepcopy(cache)
            for _turn in range(2):
                cached = hf.generate(input_ids=ids, past_key_values=behind, **options)
                assert torch.equal(cached, hf.generate(input_ids=ids, use_cache=False, **options))
                ids = torch.cat([cached, prefix], dim=1)
    with (
        torch.no_grad(),
        steer(model, vector, mode="replace"),
        pytest.raises(ValueError, match=r"holds 5 that ran outside this `steer`. Fill it inside, or give none"),
    ):
        hf.generate(input_ids=torch.cat([prefix, prefix], dim=1), past_key_values=cache, **options)


def test_the_model_below_its_head_is_steered_by_itself(families):
    case = Case(families["Llama 3"])
    ids, mask = tokens(2, 9, pads=(4, 0))
    for positions in POSITIONS:
        with torch.no_grad(), steer(case.model, case.vector, positions=positions):
            ours = case.hf.lm_head(case.hf.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state)
        theirs = case.judge(ids[1], slots(positions, 9, 9))
        torch.testing.assert_close(ours[1], theirs, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["Mistral", "Gemma 3"])
def test_in_half_precision_and_inference_mode_the_named_residuals_move_by_the_vector(families, family, dtype):
    case = Case(families[family])
    case.hf.to(dtype)
    ids, mask = tokens(2, 13, pads=(4, 0))
    for positions in POSITIONS:
        with torch.inference_mode():
            plain = residuals_after(case, ids, mask)
            with steer(case.model, case.vector, positions=positions):
                moved = residuals_after(case, ids, mask) - plain
        named = slots(positions, 13, 13) & mask.bool()
        error = (moved - named[..., None] * case.vector.directions[0])[mask.bool()].abs().max()
        assert error < 0.02 * plain.abs().max()
        assert (moved[~named & mask.bool()] == 0).all()


def residuals_after(case, ids, mask) -> torch.Tensor:
    seen = []
    with watch_residuals(case.model, {LAYER: lambda resid: seen.append(resid.float().clone())}):
        case.hf(input_ids=ids, attention_mask=mask, use_cache=False)
    return seen[0]


def test_gradient_checkpointing_recomputes_the_same_edits(families):
    case = Case(families["Llama 3"])
    case.hf.train()
    ids, mask = tokens(2, 9, pads=(4, 0))

    def gradients():
        case.hf.zero_grad()
        case.hf(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        return [parameter.grad.clone() for parameter in case.hf.parameters() if parameter.grad is not None]

    for positions in POSITIONS:
        with steer(case.model, case.vector, positions=positions):
            whole = gradients()
            case.hf.activation_checkpointing_enable()
            again = gradients()
            case.hf.activation_checkpointing_disable()
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole, again, strict=True))


@pytest.mark.slow
def test_a_model_that_was_compiled_before_is_steered(families, as_users_call):
    case = Case(families["Llama 3"])
    compiled = torch.compile(case.hf, backend="eager")
    ids, _ = tokens(1, 9)

    def difference(steered):
        return (compiled(input_ids=ids, use_cache=False).logits[0] - case.judge(ids[0], steered)).abs().max()

    nothing = torch.zeros(9, dtype=torch.bool)
    with torch.no_grad():
        assert difference(nothing) < 1e-3
        for positions in ("all", "last_prompt"):
            with steer(case.model, case.vector, positions=positions):
                assert difference(slots(positions, 9, 9)) < 1e-3
        assert difference(nothing) < 1e-3
