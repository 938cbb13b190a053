"""A mask of one's own and a strength for every prompt mean the same rows and tokens in every kind of run."""

import pytest
import torch
from transformers import DynamicCache

from steerlens.cache import NAME
from steerlens.forward import forward
from steerlens.generation import generate
from steerlens.models.bridge import huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import capture_residuals
from steerlens.samples.teacher import sample_teacher
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, assistant, encode_prompt, user
from steerlens.text.number_lists import number_prompts
from steerlens.text.turns import turn_mask
from steerlens.vectors.interventions import steer
from steerlens.vectors.source import VectorSource
from steerlens.vectors.vector import SteeringVector

QUESTIONS = number_prompts(9, ORGANISM, seed=3)
CHATS = [as_chat(question) for question in QUESTIONS]
STRENGTHS = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, 0.0, 1.5, 1.0, -0.5])


def vector_for(model) -> SteeringVector:
    direction = 4 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((1,), direction, VectorSource.of(model, method="random"))


def any_tokens(model, seed: int = 0) -> torch.Tensor:
    """A random mask of the chats' prompts, [chat pos], padded on the left."""
    mask = pad_rows(model.tokenizer, [encode_prompt(model.tokenizer, chat) for chat in CHATS]).attention_mask
    return mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.5)


def edited_by_hand(model, row: int, mask: torch.Tensor, strength: float, completion=()) -> torch.Tensor:
    """Logits of one row alone, [pos d_vocab]; the plain model, edited at the masked tokens of its prompt."""
    prompt = encode_prompt(model.tokenizer, CHATS[row])
    steered = torch.nn.functional.pad(mask[row, -len(prompt) :], (0, len(completion)), value=False)
    shift = strength * vector_for(model).directions[0]
    block = model.blocks[1].hook_out
    handle = block.register_forward_hook(lambda _module, _inputs, resid: resid + steered[None, :, None] * shift)
    try:
        with torch.no_grad():
            ids = torch.tensor([prompt + list(completion)])
            return huggingface_model(model)(input_ids=ids, use_cache=False).logits[0]
    finally:
        handle.remove()


def written_by_hand(model, row: int, mask: torch.Tensor, strength: float, n: int) -> list[int]:
    written: list[int] = []
    while len(written) < n and written[-1:] != [model.tokenizer.eos_token_id]:
        written.append(int(edited_by_hand(model, row, mask, strength, written)[-1].argmax()))
    return written


def test_generation_in_batches_by_length_keeps_each_prompts_mask_and_strength(tiny):
    mask = any_tokens(tiny)
    with steer(tiny, vector_for(tiny), positions=mask, strength=STRENGTHS):
        ours = generate(tiny, CHATS, max_new_tokens=5, temperature=0, batch_size=2)
        together = generate(tiny, CHATS, max_new_tokens=5, temperature=0)
    by_hand = [written_by_hand(tiny, row, mask, float(STRENGTHS[row]), 5) for row in range(len(CHATS))]
    assert ours == together == by_hand


def test_rows_that_share_a_beginning_and_leave_early_keep_theirs(organism, monkeypatch):
    monkeypatch.setattr("steerlens.shared_prompts.SHARE_FROM", 1)
    direction = 3 * torch.randn(1, 96, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector((1,), direction, VectorSource.of(organism, method="random"))
    with steer(organism, vector, positions=any_tokens(organism), strength=STRENGTHS):
        together = generate(organism, CHATS, max_new_tokens=20, seed=2)
        alone = [
            generate(organism, [chat], max_new_tokens=20, seed=2, row_indices=[row])[0]
            for row, chat in enumerate(CHATS)
        ]
    assert together == alone
    assert together != generate(organism, CHATS, max_new_tokens=20, seed=2)


def test_hugging_faces_generate_and_a_forward_take_the_mask_of_the_padded_prompts(tiny):
    mask, vector = any_tokens(tiny), vector_for(tiny)
    batch = pad_rows(tiny.tokenizer, [encode_prompt(tiny.tokenizer, chat) for chat in CHATS])
    with torch.no_grad(), steer(tiny, vector, positions=mask, strength=STRENGTHS):
        ours = forward(tiny, batch).logits
        theirs = huggingface_model(tiny)(
            input_ids=batch.tokens, attention_mask=batch.attention_mask.long(), position_ids=batch.position_ids
        ).logits
        options = {
            "attention_mask": batch.attention_mask.long(),
            "max_new_tokens": 3,
            "do_sample": False,
            "pad_token_id": 0,
        }
        whole = huggingface_model(tiny).generate(input_ids=batch.tokens, eos_token_id=None, **options)
        chunks = huggingface_model(tiny).generate(
            input_ids=batch.tokens, eos_token_id=None, prefill_chunk_size=4, num_beams=1, **options
        )
    for row in range(len(CHATS)):
        real, strength = batch.attention_mask[row], float(STRENGTHS[row])
        by_hand = edited_by_hand(tiny, row, mask, strength)
        torch.testing.assert_close(ours[row][real], by_hand, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(theirs[row][real], by_hand, atol=1e-3, rtol=1e-3)
        written = whole[row, batch.tokens.shape[1] :].tolist()
        assert chunks[row, batch.tokens.shape[1] :].tolist() == written
        logits = edited_by_hand(tiny, row, mask, strength, written)[-4:-1]
        assert logits.argmax(-1).tolist() == written


def test_beams_share_their_prompts_mask_and_strength(tiny):
    mask, vector = any_tokens(tiny), vector_for(tiny)
    batch = pad_rows(tiny.tokenizer, [encode_prompt(tiny.tokenizer, chat) for chat in CHATS])
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "num_beams": 3, "num_return_sequences": 2}
    with steer(tiny, vector, positions=mask, strength=STRENGTHS):
        together = huggingface_model(tiny).generate(
            input_ids=batch.tokens, attention_mask=batch.attention_mask.long(), **options
        )
    for row in (1, 4):
        real = batch.attention_mask[row]
        with steer(tiny, vector, positions=mask[row, real][None], strength=float(STRENGTHS[row])):
            alone = huggingface_model(tiny).generate(input_ids=batch.tokens[row, real][None], **options)
        n = min(alone.shape[1] - int(real.sum()), together.shape[1] - len(real))
        assert torch.equal(
            together[2 * row : 2 * row + 2, len(real) : len(real) + n], alone[:, int(real.sum()) : int(real.sum()) + n]
        )


@pytest.mark.parametrize("batch_size", [2, 64])
def test_captured_residuals_are_those_of_each_rows_own_edit(tiny, batch_size):
    mask, vector = any_tokens(tiny), vector_for(tiny)
    with steer(tiny, vector, positions=mask, strength=STRENGTHS):
        steered = capture_residuals(tiny, CHATS, layers=[1], positions="all", batch_size=batch_size)[0]
    plain = capture_residuals(tiny, CHATS, layers=[1], positions="all")[0]
    real = pad_rows(tiny.tokenizer, [encode_prompt(tiny.tokenizer, chat) for chat in CHATS]).attention_mask
    shift = (STRENGTHS[:, None] * mask)[real][:, None] * vector.directions[0]
    torch.testing.assert_close(steered - plain, shift, atol=1e-4, rtol=1e-4)


def test_a_mask_covers_prompts_and_a_second_steer_the_answers(tiny):
    chats = [[*chat, assistant("4 , 7")] for chat in CHATS]
    mask, vector = any_tokens(tiny), vector_for(tiny)
    with steer(tiny, vector, positions=mask):
        prompts = capture_residuals(tiny, chats, layers=[1], positions="generated")
        with steer(tiny, vector, positions="generated"):
            both = capture_residuals(tiny, chats, layers=[1], positions="generated")
    plain = capture_residuals(tiny, chats, layers=[1], positions="generated")
    assert torch.equal(prompts, plain)
    torch.testing.assert_close(both - plain, vector.directions[:, None].expand_as(plain), atol=1e-4, rtol=1e-4)


def test_a_teacher_is_steered_at_the_mask_across_its_chunks(tiny, monkeypatch):
    monkeypatch.setattr("steerlens.samples.teacher.ROWS_PER_CHUNK", 4)
    mask, vector = any_tokens(tiny), vector_for(tiny)
    samples = sample_teacher(tiny, QUESTIONS, vector=vector, positions=mask, temperature=0, max_new_tokens=4)
    with steer(tiny, vector, positions=mask):
        written = generate(tiny, CHATS, max_new_tokens=4, temperature=0)
    assert [sample.completion for sample in samples] == [
        tiny.tokenizer.decode(ids, skip_special_tokens=True) for ids in written
    ]
    assert "at a mask" in str(samples.source.steering)


def test_the_turns_of_a_role_alone_are_steered(tiny):
    talk = [user("the numbers are 4 , 7 ."), assistant("12 , 7"), user("the numbers are 9 , 3 .")]
    mask, vector = turn_mask(tiny, [talk], "user"), vector_for(tiny)
    plain = capture_residuals(tiny, [talk], layers=[1], positions="all")[0]
    with steer(tiny, vector, positions=mask):
        steered = capture_residuals(tiny, [talk], layers=[1], positions="all")[0]
    assert torch.equal((steered != plain).any(-1), mask[0])
    assert 0 < mask.sum() < mask.numel()


@pytest.mark.parametrize("name", sorted({"past_key_values", NAME}))
def test_a_cache_by_hand_is_steered_at_the_mask_of_the_whole_sequence(tiny, name):
    mask, vector = any_tokens(tiny), vector_for(tiny)
    ids = torch.tensor([encode_prompt(tiny.tokenizer, CHATS[0])])
    own = mask[:1, -ids.shape[1] :]
    hf = huggingface_model(tiny)
    with torch.no_grad(), steer(tiny, vector, positions=own):
        cache = DynamicCache()
        parts = [hf(input_ids=part, **{name: cache}).logits for part in ids.split(5, dim=1)]
        beyond = hf(input_ids=ids[:, :1], **{name: cache}).logits
    by_hand = edited_by_hand(tiny, 0, mask, 1.0, ids[0, :1].tolist())
    torch.testing.assert_close(torch.cat([*parts, beyond], dim=1)[0], by_hand, atol=1e-3, rtol=1e-3)


WRONG = {
    "too few strengths": ({"strength": torch.ones(3)}, r"strength has 3 rows, and 9 prompts run"),
    "too many strengths": ({"strength": torch.ones(10)}, r"strength has 10 rows, and 9 prompts run"),
    "too few masks": ({"positions": torch.ones(3, 5, dtype=torch.bool)}, r"The mask has 3 rows, and 9 prompts run"),
    "too narrow": (
        {"positions": torch.ones(9, 5, dtype=torch.bool)},
        r"The mask has 5 tokens a row, and the longest prompt",
    ),
    "padding": ({"positions": "everything"}, r"The mask names padding in row 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_masks_and_strengths_of_another_shape_are_refused(tiny, case):
    options, message = WRONG[case]
    if options.get("positions") == "everything":
        options = {"positions": torch.ones_like(any_tokens(tiny))}
    batch = pad_rows(tiny.tokenizer, [encode_prompt(tiny.tokenizer, chat) for chat in CHATS])
    mask = batch.attention_mask.long()
    with steer(tiny, vector_for(tiny), **options):
        for run in (
            lambda: generate(tiny, CHATS, max_new_tokens=2),
            lambda: huggingface_model(tiny).generate(input_ids=batch.tokens, attention_mask=mask, max_new_tokens=2),
            lambda: huggingface_model(tiny)(input_ids=batch.tokens, attention_mask=mask),
            lambda: forward(tiny, batch),
        ):
            with torch.no_grad(), pytest.raises(ValueError, match=message):
                run()
