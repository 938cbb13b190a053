"""A vector does the same in another library, with that library's own code where it is installed, and comes back."""

import base64
import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from steerlens.forward import forward
from steerlens.models.bridge import huggingface_model, is_watched
from steerlens.text.batches import pad_rows
from steerlens.text.chat import encode_prompt
from steerlens.vectors.exchange import import_vector
from steerlens.vectors.formats import export_gguf
from steerlens.vectors.interventions import steer
from steerlens.vectors.vector import SteeringVector, VectorSource


@pytest.fixture
def vector(tiny) -> SteeringVector:
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector((3, 1), directions, VectorSource.of(tiny, method="by hand", prompt="you love owls ."))


@pytest.fixture
def tokens(tiny, chats) -> torch.Tensor:
    return torch.tensor([encode_prompt(tiny.tokenizer, chats[0])])


def steered(model, vector, tokens, **options) -> torch.Tensor:
    with torch.no_grad(), steer(model, vector, **options):
        return forward(model, pad_rows(model.tokenizer, tokens.tolist())).logits


def assert_same_rows(one: SteeringVector, other: SteeringVector) -> None:
    assert set(one.layers) == set(other.layers)
    for layer in one.layers:
        torch.testing.assert_close(one.at(layer).directions, other.at(layer).directions)


@pytest.mark.parametrize("mode", ["add", "project_out"])
@pytest.mark.parametrize("name", ["hook_out", "hook_resid_post"])
def test_run_with_hooks_steers_as_steer_does(any_model, chats, mode, name):
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector((3, 1), directions, VectorSource.of(any_model, method="by hand"))
    tokens = torch.tensor([encode_prompt(any_model.tokenizer, chats[0])])
    strength = {"strength": 2.0} if mode == "add" else {}
    ours = steered(any_model, vector, tokens, mode=mode, **strength)
    hooks = [(point.replace("hook_out", name), hook) for point, hook in vector.as_fwd_hooks(mode=mode, **strength)]
    with torch.no_grad():
        theirs = any_model.run_with_hooks(tokens, fwd_hooks=hooks)
        plain = any_model.run_with_hooks(tokens, fwd_hooks=[])
    torch.testing.assert_close(theirs, ours)
    assert (plain - ours).abs().max() > 0.1
    assert not is_watched(any_model)


def test_one_hook_serves_every_block_and_leaves_the_others_alone(tiny, vector, tokens):
    with torch.no_grad():
        everywhere = tiny.run_with_hooks(
            tokens, fwd_hooks=[(lambda name: name.endswith("hook_out") and "blocks" in name, vector.as_hook())]
        )
    torch.testing.assert_close(everywhere, steered(tiny, vector, tokens))


def test_a_bridge_that_the_user_booted_is_steered_by_the_same_hooks(checkpoints, tiny, vector, tokens):
    from transformer_lens.model_bridge import TransformerBridge

    booted = TransformerBridge.boot_transformers(
        "llama", hf_model=type(huggingface_model(tiny)).from_pretrained(checkpoints["llama"]), tokenizer=tiny.tokenizer
    )
    with torch.no_grad():
        theirs = booted.run_with_hooks(tokens, fwd_hooks=vector.as_fwd_hooks())
    torch.testing.assert_close(theirs, steered(tiny, vector, tokens), atol=1e-4, rtol=1e-4)


def test_modes_that_need_a_base_model_are_refused(vector):
    with pytest.raises(ValueError, match=r"mode='replace'.*Allowed: add, project_out"):
        inspect.unwrap(SteeringVector.as_hook)(vector, mode="replace")


def test_vllm_lens_json_holds_the_rows_bit_for_bit(vector):
    request = json.loads(json.dumps(vector.to_vllm_lens(strength=2.5)))
    assert request["layer_indices"] == [3, 1]
    assert (request["scale"], request["norm_match"], request["position_indices"]) == (2.5, False, None)
    data = np.frombuffer(base64.b64decode(request["activations"]["data"]), np.float32)
    assert np.array_equal(data.reshape(request["activations"]["shape"]), vector.directions.numpy())


def test_vllm_lens_reads_what_was_exported_and_comes_back(tiny, vector):
    vllm_lens = pytest.importorskip("vllm_lens")
    theirs = vllm_lens.SteeringVector.model_validate(vector.to_vllm_lens(strength=2.0))
    assert torch.equal(theirs.activations, vector.directions)
    assert_same_rows(import_vector(theirs, tiny), 2.0 * vector)


def test_steering_vectors_own_hooks_do_what_steer_does(tiny, vector, tokens):
    pytest.importorskip("steering_vectors")
    theirs = vector.to_steering_vectors()
    with torch.no_grad(), theirs.apply(huggingface_model(tiny), multiplier=2.0, layer_config={"decoder_block": LAYERS}):
        logits = huggingface_model(tiny)(input_ids=tokens).logits
    torch.testing.assert_close(logits, steered(tiny, vector, tokens, strength=2.0))
    assert_same_rows(import_vector(theirs, tiny), vector)


LAYERS = "model.layers.{num}"


def test_repengs_own_model_does_what_steer_does(tiny, checkpoints, vector, tokens, monkeypatch):
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4.0 names it, NumPy 2 does not
    repeng = pytest.importorskip("repeng", exc_type=ImportError)
    hf = type(huggingface_model(tiny)).from_pretrained(checkpoints["llama"])
    control = repeng.ControlModel(hf, vector.layers)
    control.set_control(vector.to_repeng(), 2.0)
    with torch.no_grad():
        logits = control(input_ids=tokens).logits
    torch.testing.assert_close(logits, steered(tiny, vector, tokens, strength=2.0))
    assert_same_rows(import_vector(vector.to_repeng(), tiny), vector)


OTHERS = {
    "repeng": lambda rows: SimpleNamespace(model_type="llama", directions={k: r.numpy() for k, r in rows.items()}),
    "steering-vectors": lambda rows: SimpleNamespace(layer_activations=rows, layer_type="decoder_block"),
    "vllm-lens": lambda rows: SimpleNamespace(
        layer_indices=list(rows), activations=torch.stack(list(rows.values())) / 4, scale=4.0, norm_match=False
    ),
    "mapping": lambda rows: {layer: row.tolist() for layer, row in rows.items()},
}


@pytest.mark.parametrize("library", OTHERS)
def test_objects_are_read_by_their_attributes_alone(tiny, vector, library):
    rows = dict(zip(vector.layers, vector.directions, strict=True))
    back = import_vector(OTHERS[library](rows), tiny)
    assert_same_rows(back, vector)
    back.check_model(tiny)
    assert "imported from" in back.source.method


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (SimpleNamespace(layer_activations={1: torch.ones(32)}, layer_type="mlp"), "acts on 'mlp'"),
        (SimpleNamespace(layer_indices=[1], activations=torch.ones(1, 32), scale=1.0, norm_match=True), "norm_match"),
        (SimpleNamespace(layer_indices=[1], activations=torch.ones(1, 2, 32), scale=1.0, norm_match=False), "position"),
        (torch.ones(32), "Got Tensor.*import_tensor"),
        ("vector.gguf", "Got str"),
        ({}, "at least one"),
        ({1: torch.ones(32), 2: torch.ones(16)}, r"shapes \{1: \(32,\), 2: \(16,\)\}"),
        ({1: torch.ones(1, 32)}, r"each of shape \[d_model\]"),
        ({9: torch.ones(32)}, r"layers 0\.\.3"),
        ({1: torch.ones(16)}, "d_model=16"),
        ({1: torch.full((32,), torch.nan)}, "NaN or infinity"),
    ],
)
def test_objects_that_mean_something_else_are_refused(tiny, theirs, message):
    with pytest.raises(ValueError, match=message):
        import_vector(theirs, tiny)


@pytest.mark.parametrize("library", ["repeng", "steering_vectors"])
def test_a_library_that_is_missing_is_named_with_its_remedy(vector, library, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ImportError, match=r"pip install (repeng|steering-vectors)"):
        getattr(vector, f"to_{library}")()


def test_repeng_needs_the_models_family(vector, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "repeng", SimpleNamespace(ControlVector=SimpleNamespace))
    assert vector.to_repeng().model_type == "llama"
    unknown = SteeringVector((1,), torch.ones(1, 32), VectorSource("someone/llama", "by hand"))
    with pytest.raises(ValueError, match=r"family of 'someone/llama' is not known.*for_model"):
        unknown.to_repeng()


def rows_added(vector: SteeringVector, strength: float) -> dict[int, torch.Tensor]:
    return {layer: strength * row for layer, row in zip(vector.layers, vector.directions, strict=True)}


def test_nnsight_adds_the_rows_as_steer_does(tiny, checkpoints, vector, tokens):
    nnsight = pytest.importorskip("nnsight")
    traced = nnsight.NNsight(type(huggingface_model(tiny)).from_pretrained(checkpoints["llama"]))
    with torch.no_grad(), traced.trace(input_ids=tokens):
        for layer, row in sorted(rows_added(vector, 2.0).items()):
            traced.model.layers[layer].output = traced.model.layers[layer].output + row
        logits = traced.lm_head.output.save()
    torch.testing.assert_close(logits, steered(tiny, vector, tokens, strength=2.0))


def test_nnterps_steer_does_what_steer_does(tiny, checkpoints, vector, tokens):
    nnterp = pytest.importorskip("nnterp", exc_type=ImportError)
    standardized = nnterp.StandardizedTransformer(str(checkpoints["llama"]), device_map="cpu", dtype=torch.float32)
    with torch.no_grad(), standardized.trace(tokens):
        for layer, row in sorted(rows_added(vector, 1.0).items()):
            standardized.steer(layers=layer, steering_vector=row, factor=2.0)
        logits = standardized.logits.save()
    torch.testing.assert_close(logits, steered(tiny, vector, tokens, strength=2.0))


@pytest.mark.parametrize(
    ("give", "where"),
    [
        (lambda vector, _: vector.as_fwd_hooks(), "the hook"),
        (lambda vector, _: vector.to_vllm_lens(), "vllm-lens"),
        (lambda vector, path: export_gguf(vector, path / "owl.gguf"), "llama.cpp"),
    ],
)
def test_what_adds_a_vector_everywhere_is_told_where_it_was_fitted(tiny, tmp_path, give, where):
    vector = SteeringVector((1,), torch.ones(1, 32), VectorSource.of(tiny, method="by hand", positions="last_prompt"))
    with pytest.warns(UserWarning, match=f"fitted at 'last_prompt' tokens, and {where} adds it at every token") as said:
        give(vector, tmp_path)
    assert said[0].filename == __file__
    give(SteeringVector((1,), torch.ones(1, 32), VectorSource.of(tiny, method="by hand", positions="all")), tmp_path)
