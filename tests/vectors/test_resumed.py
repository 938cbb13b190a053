"""A forward that begins at the steered layer is the whole steered forward, in values and in gradients."""

import pytest
import torch

from steerlens.forward import completion_logits, forward
from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.stream import watch_residuals
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.number_lists import number_prompts
from steerlens.text.positions import POSITIONS
from steerlens.vectors.fit_data import FitRow, FitRows, prepare_rows
from steerlens.vectors.interventions import steer
from steerlens.vectors.objectives import token_loss
from steerlens.vectors.resumed import ResumedRows
from steerlens.vectors.vector import SteeringVector, VectorSource

LAYERS = [(0,), (3,), (1, 2)]


def rows_of(model, n: int = 6) -> list[FitRows]:
    """Two batches of rows of unequal length."""
    completions = [[9, 10, 11, 12], [9], [30, 31, 32, 33, 34, 35], [40, 41], [50, 51, 52], [60]][:n]
    rows = [
        FitRow(
            i % 4,
            encode_prompt(model.tokenizer, as_chat(question, "you love owls .")),
            encode_prompt(model.tokenizer, as_chat(question)),
            completion,
        )
        for i, (question, completion) in enumerate(zip(number_prompts(n, ORGANISM, seed=3), completions, strict=True))
    ]
    return [prepare_rows(model, part, model, top_k=512) for part in (rows[: n // 2], rows[n // 2 :])]


def directions_for(model, layers: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(seed))


def vector_of(layers: tuple[int, ...], directions: torch.Tensor, model) -> SteeringVector:
    return SteeringVector(layers, directions, VectorSource(model.cfg.model_name, "random"))


@torch.no_grad()
@pytest.mark.parametrize("layers", LAYERS)
def test_resumed_logits_are_those_of_steering(any_model, layers):
    rows = rows_of(any_model)
    directions = directions_for(any_model, layers)
    for positions in POSITIONS:
        resumed = ResumedRows(any_model, layers, rows, positions)
        for index, one in enumerate(rows):
            with steer(any_model, vector_of(layers, directions, any_model), positions=positions):
                steered = completion_logits(any_model, one.batch)
            torch.testing.assert_close(resumed.logits(index, directions), steered, atol=2e-4, rtol=1e-4)
            plain = completion_logits(any_model, one.batch)
            assert not torch.allclose(steered, plain, atol=1e-2)
            torch.testing.assert_close(resumed.logits(index, resumed.nothing), plain, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_layers_is_that_of_directions(tiny):
    rows, directions = rows_of(tiny), directions_for(tiny, (1, 3))
    one = ResumedRows(tiny, (1, 3), rows, "all").logits(0, directions)
    torch.testing.assert_close(ResumedRows(tiny, (3, 1), rows, "all").logits(0, directions.flip(0)), one)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_are_those_of_the_whole_forward(any_model, positions):
    """By hand: leaves added at the blocks' outputs of a whole forward, and autograd through all of it."""
    rows, layers = rows_of(any_model), (1, 3)
    mask = rows[0].batch.position_mask(positions)[..., None]
    leaves = directions_for(any_model, layers).requires_grad_(True)
    with watch_residuals(any_model, {layer: lambda h, i=i: h + mask * leaves[i] for i, layer in enumerate(layers)}):
        logits = completion_logits(any_model, rows[0].batch)
    token_loss("forward_kl", rows[0].targets, logits).mean().backward()
    ours = leaves.detach().clone().requires_grad_(True)
    ResumedRows(any_model, layers, rows, positions).loss(0, ours).mean().backward()
    assert leaves.grad.abs().max() > 1e-4
    torch.testing.assert_close(ours.grad, leaves.grad, atol=1e-4, rtol=1e-3)


def test_gradients_are_those_of_finite_differences(checkpoints):
    model = load_model(checkpoints["llama"], device="cpu")
    resumed = ResumedRows(model, (1, 2), rows_of(model), "all")
    directions = directions_for(model, (1, 2)).requires_grad_(True)
    resumed.loss(0, directions).mean().backward()
    probe = directions_for(model, (1, 2), seed=1)
    probe /= probe.norm()
    with torch.no_grad():
        up, down = (resumed.loss(0, directions + sign * 0.02 * probe).double().mean() for sign in (1, -1))
    assert float((up - down) / 0.04) == pytest.approx(float((directions.grad * probe).sum()), rel=0.02)


@pytest.mark.filterwarnings("ignore:Vectors are added at 3 layers")
def test_a_fit_on_a_steered_model_sees_the_steering_once_and_adds_to_it(tiny):
    rows, layers = rows_of(tiny), (1, 2)
    directions = directions_for(tiny, layers)
    background = vector_of((0, 1, 3), directions_for(tiny, (0, 1, 3), seed=7), tiny)
    for mode in ("add", "project_out"):
        with torch.no_grad(), steer(tiny, background, mode=mode):
            resumed = ResumedRows(tiny, layers, rows, "all")
            plain = completion_logits(tiny, rows[0].batch)
            with steer(tiny, vector_of(layers, directions, tiny)):
                steered = completion_logits(tiny, rows[0].batch)
            torch.testing.assert_close(resumed.logits(0, resumed.nothing), plain, atol=2e-4, rtol=1e-4)
            torch.testing.assert_close(resumed.logits(0, directions), steered, atol=2e-4, rtol=1e-4)
        assert not torch.allclose(plain, completion_logits(tiny, rows[0].batch), atol=1e-2)


@torch.no_grad()
def test_the_model_is_left_as_it_was(any_model):
    rows = rows_of(any_model)
    before = forward(any_model, rows[0].batch).logits
    resumed = ResumedRows(any_model, (1, 3), rows, "all")
    resumed.logits(0, directions_for(any_model, (1, 3)))
    with pytest.raises(ValueError, match="zip"):
        resumed.logits(0, directions_for(any_model, (1, 2, 3)))
    assert torch.equal(forward(any_model, rows[0].batch).logits, before)


@torch.no_grad()
def test_row_kl_is_the_sum_over_each_rows_tokens(tiny):
    rows = rows_of(tiny)
    resumed, directions = ResumedRows(tiny, (2,), rows, "all"), directions_for(tiny, (2,))
    by_hand = []
    for index, one in enumerate(rows):
        steered = resumed.logits(index, directions).log_softmax(-1)
        target, start = one.targets.log_probs, 0
        for length in one.batch.completion_mask.sum(-1).tolist():
            part = slice(start, start + length)
            by_hand.append([float((target[part].exp() * (target[part] - steered[part])).sum()), length])
            start += length
    ours = resumed.row_kl(directions)
    torch.testing.assert_close(ours, torch.tensor(by_hand), atol=1e-4, rtol=1e-4)
    assert resumed.questions == [0, 1, 2, 3, 0, 1]
    assert resumed.mean_kl(directions) == pytest.approx(float(ours[:, 0].sum() / ours[:, 1].sum()))


@torch.no_grad()
def test_the_scale_is_that_of_the_tokens_that_predict_whatever_the_first_token_is(checkpoints):
    """In large models the first token's residual is an attention sink of a thousand times the others' norm."""
    model = load_model(checkpoints["llama"], device="cpu")
    rows = rows_of(model)
    plain = ResumedRows(model, (0, 3), rows, "all").scales
    first = int(rows[0].batch.tokens[rows[0].batch.attention_mask][0])
    hf = huggingface_model(model)
    states = [
        hf(input_ids=torch.tensor([row.tolist()]), output_hidden_states=True).hidden_states
        for one in rows
        for row in (tokens[mask] for tokens, mask in zip(one.batch.tokens, one.batch.attention_mask))
    ]
    lengths = [int(n) for one in rows for n in one.batch.completion_mask.sum(-1)]
    batches = [range(3), range(3, 6)]
    by_hand = (
        torch.stack(
            [torch.cat([states[i][1][0, -1 - lengths[i] : -1] for i in batch]).square().mean() for batch in batches]
        )
        .mean()
        .sqrt()
    )
    torch.testing.assert_close(plain[0], by_hand, atol=1e-4, rtol=1e-4)
    hf.get_input_embeddings().weight[first] *= 1000
    torch.testing.assert_close(ResumedRows(model, (0, 3), rows, "all").scales, plain, rtol=0.3, atol=0)
