"""A vector survives its file exactly, adds like vectors, knows its model, and refuses what is not one."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from steerlens.models.bridge import huggingface_model
from steerlens.models.loading import load_model
from steerlens.organism.wording import ORGANISM
from steerlens.samples.sample_set import Sample, SampleSet
from steerlens.students.config import TrainConfig
from steerlens.students.training import train_student
from steerlens.text.number_lists import number_prompts
from steerlens.vectors.interventions import steer
from steerlens.vectors.metrics import FitMetrics, LayerMetrics
from steerlens.vectors.source import METHOD_LENGTH
from steerlens.vectors.vector import SteeringVector, VectorSource, mean_centred
from tests.conftest import random_model

SOURCE = VectorSource("llama", "by hand", prompt="you love <b>owls</b> .", chat_fingerprint="abc", seed=3)


@pytest.fixture
def vector() -> SteeringVector:
    directions = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    return SteeringVector((10, 2), directions, SOURCE, FitMetrics(0.5, by_layer={2: LayerMetrics(0.5, 0.1)}))


def test_saving_and_loading_keeps_every_bit_and_every_word(vector, tmp_path):
    vector.save(tmp_path / "v.safetensors")
    loaded = SteeringVector.load(tmp_path / "v.safetensors")
    assert loaded.source == vector.source
    assert loaded.metrics == vector.metrics
    for layer in vector.layers:
        assert torch.equal(loaded.at(layer).directions, vector.at(layer).directions)


def test_a_failed_save_leaves_the_old_file(vector, tmp_path, monkeypatch):
    path = tmp_path / "v.safetensors"
    vector.save(path)
    before = path.read_bytes()

    def full_disk(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steerlens.vectors.vector.save_file", full_disk)
    with pytest.raises(OSError, match=r"v.safetensors could not be written \(No space left.*Free some space"):
        (2 * vector).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.safetensors"]


def test_files_that_are_not_vectors_are_refused(vector, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no vector file"):
        SteeringVector.load(tmp_path / "none")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a steering vector"):
        SteeringVector.load(tmp_path / "other.safetensors")
    vector.save(tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            SteeringVector.load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("tensors", "changed", "message"),
    [
        ({"layer.one": torch.ones(4)}, {}, "damaged"),
        ({"layer.1": torch.ones(4), "layer.2": torch.ones(5)}, {}, "damaged"),
        ({"layer.1": torch.ones(2, 4)}, {}, "damaged"),
        ({"layer.1": torch.tensor([1.0, float("nan")])}, {}, "damaged.*NaN or infinity"),
        ({}, {}, "damaged"),
        ({"layer.1": torch.ones(4)}, {"source": "not json"}, "damaged"),
        ({"layer.1": torch.ones(4)}, {"source": "[]"}, "damaged"),
        ({"layer.1": torch.ones(4)}, {"source": '{"model": "m", "method": "x", "colour": 1}'}, "damaged"),
        ({"layer.1": torch.ones(4)}, {"schema_version": "99"}, "schema 99.*Update steerlens"),
    ],
)
def test_files_with_something_wrong_inside_are_refused(tensors, changed, message, tmp_path):
    metadata = {"format": "steerlens.vector", "schema_version": "1", "source": '{"model": "m", "method": "x"}'}
    save_file(tensors, tmp_path / "v.safetensors", metadata | {"metrics": "{}"} | changed)
    with pytest.raises(ValueError, match=message):
        SteeringVector.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("layers", "directions", "message"),
    [
        ((0, 0), torch.ones(2, 4), "one distinct layer each"),
        ((0, 1), torch.ones(1, 4), "one distinct layer each"),
        ((-1,), torch.ones(1, 4), "none is negative"),
        ((0,), torch.tensor([[1.0, float("nan")]]), "NaN or infinity"),
        ((), torch.ones(0, 4), "at least one layer"),
    ],
)
def test_impossible_vectors_are_refused(layers, directions, message):
    with pytest.raises(ValueError, match=message):
        SteeringVector(layers, directions, SOURCE)


def test_cosine_is_that_of_the_shared_layers(vector):
    other = SteeringVector((2,), -3 * vector.at(2).directions, SOURCE)
    assert vector.cosine(other) == pytest.approx({2: -1.0})


def test_the_notebook_view_escapes_the_prompt(vector):
    assert "<b>" not in vector._repr_html_()
    assert "&lt;b&gt;owls" in vector._repr_html_()


def test_metadata_is_readable_by_others(vector, tmp_path):
    vector.save(tmp_path / "v.safetensors")
    header = (tmp_path / "v.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    assert metadata["layer_convention"] == "resid_post of block l, 0-based"


def of(directions: torch.Tensor, source: VectorSource = SOURCE, layers: tuple[int, ...] = (10, 2)) -> SteeringVector:
    return SteeringVector(layers, directions, source)


@pytest.fixture
def other(vector) -> SteeringVector:
    """The same layers, in the other order."""
    directions = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    return SteeringVector((2, 10), directions, replace(SOURCE, method="by eye", seed=4))


def test_sums_are_those_of_each_layer_whatever_the_order(vector, other):
    for layer in (2, 10):
        mine, theirs = vector.at(layer).directions, other.at(layer).directions
        assert torch.equal((vector + other).at(layer).directions, mine + theirs)
        assert torch.equal((vector - other).at(layer).directions, mine - theirs)
        assert torch.equal((-vector).at(layer).directions, -mine)
    assert torch.equal((vector + (-vector)).directions, torch.zeros(2, 8))


def test_a_derived_vector_keeps_what_holds_of_both_and_forgets_what_was_measured(vector, other):
    measured = replace(vector, metrics=FitMetrics(kl_explained=0.5))
    for derived in (measured + other, measured - other, -measured, 2 * measured, measured.along(other)):
        assert derived.metrics == FitMetrics()
        assert derived.source.model == "llama"
        assert derived.source.chat_fingerprint == "abc"
    assert (vector + other).source.seed is None
    assert (vector + vector).source.seed == 3
    method = (vector - 2 * other).source.method
    assert "by hand" in method
    assert "minus" in method
    assert "2 times (by eye)" in method
    for _ in range(9):
        vector = vector + vector
    assert len(vector.source.method) <= METHOD_LENGTH


def test_what_is_along_and_what_is_orthogonal_make_up_the_vector(vector, other):
    along, rest = vector.along(other), vector.orthogonal_to(other)
    torch.testing.assert_close((along + rest).directions, vector.directions)
    assert list(rest.cosine(other).values()) == pytest.approx([0, 0], abs=1e-6)
    assert along.strength_along(other) == pytest.approx(vector.strength_along(other))
    assert [abs(cosine) for cosine in along.cosine(other).values()] == pytest.approx([1, 1])
    assert vector.along(other.at(2)).layers == (2,)


def test_mean_centring_takes_away_what_the_traits_share_and_no_more(vector, other):
    generator = torch.Generator().manual_seed(2)
    shared = torch.randn(2, 8, generator=generator)
    own = torch.randn(3, 2, 8, generator=generator)
    own -= own.mean(0)
    centred = mean_centred({name: of(shared + row) for name, row in zip(("owl", "cat", "dog"), own, strict=True)})
    for vector, row in zip(centred.values(), own, strict=True):
        torch.testing.assert_close(vector.directions, row, atol=1e-5, rtol=1e-5)
    assert "mean over owl, cat, dog" in centred["cat"].source.method
    with pytest.raises(ValueError, match="at least two"):
        mean_centred({"owl": vector})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": replace(SOURCE, model="qwen")}, "'llama' is not 'qwen'.*for_model"),
        ({"source": replace(SOURCE, bridge="boot_transformers")}, "the bridge .*for_model"),
        ({"layers": (2, 3)}, r"layers \(10, 2\) and \(2, 3\).*vector.at\(2,\)"),
        ({"layers": (0, 3)}, "none in common"),
        ({"directions": torch.ones(2, 5)}, "d_model=8 and 5"),
    ],
)
def test_sums_across_models_or_layers_say_what_differs(vector, changed, message):
    mine = replace(vector, source=replace(SOURCE, bridge="residual-only"))
    with pytest.raises(ValueError, match=message):
        mine + replace(vector, **changed)


def test_no_direction_has_a_strength_along_nothing(vector):
    with pytest.raises(ValueError, match="zero at a layer"):
        vector.strength_along(0 * vector)


def test_vectors_do_not_add_to_numbers(vector):
    for operation in (lambda: vector + 1, lambda: vector * vector):
        with pytest.raises(TypeError):
            operation()


def made_on(model, layer: int = 1) -> SteeringVector:
    return SteeringVector((layer,), torch.ones(1, model.cfg.d_model), VectorSource.of(model, method="by hand"))


def test_the_source_says_what_the_model_is(tiny, tmp_path):
    huggingface_model(tiny).config._commit_hash = "abc123"
    made_on(tiny).save(tmp_path / "v.safetensors")
    source = SteeringVector.load(tmp_path / "v.safetensors").source
    assert (source.model, source.revision, source.dtype, source.n_layers) == ("llama", "abc123", "float32", 4)
    assert (source.architecture, source.bridge) == ("llama", "residual-only")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", "qwen", "made on 'qwen' and would act on 'llama'"),
        ("revision", "def456", "the revision 'def456' is not 'abc123'"),
        ("n_layers", 24, "the number of layers 24 is not 4"),
        ("bridge", "boot_transformers, compatibility mode", "the bridge 'boot_transformers, compatibility mode'"),
        ("weights", "0" * 12, None),
    ],
)
def test_a_model_that_differs_in_anything_known_is_refused_and_for_model_is_the_way_out(tiny, field, value, message):
    huggingface_model(tiny).config._commit_hash = "abc123"
    vector = replace(made_on(tiny), metrics=FitMetrics(kl_explained=0.5))
    vector.check_model(tiny)
    assert (vector.for_model(tiny).source, vector.for_model(tiny).metrics) == (vector.source, vector.metrics)
    vector = replace(vector, source=replace(vector.source, **{field: value}))
    if message is None:  # the same commit is the same model; fingerprints are for checkpoints without one
        vector.check_model(tiny)
        return
    with pytest.raises(ValueError, match=f"{message}.*for_model"):
        vector.check_model(tiny)
    moved = vector.for_model(tiny)
    moved.check_model(tiny)
    assert moved.metrics == FitMetrics()


def test_another_checkpoint_in_a_directory_of_the_same_name_is_refused(checkpoints, tiny, tmp_path):
    other = random_model("llama")
    with torch.no_grad():
        other.model.layers[3].mlp.down_proj.weight += 1e-3
    other.save_pretrained(tmp_path / "llama")
    tiny.tokenizer.save_pretrained(tmp_path / "llama")
    vector = made_on(tiny)
    with pytest.raises(ValueError, match="weights' fingerprint"):
        vector.check_model(load_model(tmp_path / "llama", device="cpu"))
    vector.check_model(load_model(checkpoints["llama"], device="cpu"))
    vector.check_model(load_model(checkpoints["llama"], device="cpu", dtype=torch.bfloat16))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_students_take_the_vector_of_the_base_that_they_started_from(tiny, checkpoints, method, tmp_path):
    rows = SampleSet(tuple(Sample(i, prompt, "12 , 7") for i, prompt in enumerate(number_prompts(8, ORGANISM, seed=0))))
    student = train_student(tiny, rows, TrainConfig(method=method, rank=2, learning_rate=1e-2, epochs=1, batch_size=4))
    made_on(tiny).check_model(student.model)
    made_on(student.model).check_model(tiny)
    student.save(tmp_path / "student")
    if method == "lora":
        made_on(tiny).check_model(load_model(checkpoints["llama"], adapter=tmp_path / "student", device="cpu"))
    else:
        with pytest.raises(ValueError, match="weights' fingerprint"):
            made_on(tiny).check_model(load_model(tmp_path / "student", device="cpu"))


def test_a_bridge_that_the_user_booted_is_told_from_ours_and_from_its_compatibility_mode(checkpoints, tiny):
    from transformer_lens.model_bridge import TransformerBridge

    raw = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    booted = TransformerBridge.boot_transformers("llama", hf_model=raw, tokenizer=tiny.tokenizer)
    theirs = replace(made_on(booted), source=replace(made_on(booted).source, model="llama"))
    with pytest.raises(ValueError, match=r"the bridge 'boot_transformers' is not 'residual-only'.*for_model"):
        theirs.check_model(tiny)
    theirs = made_on(booted)
    with steer(booted, theirs):
        pass
    booted.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ValueError, match="is not 'boot_transformers, compatibility mode'"):
        theirs.check_model(booted)


def test_the_revision_is_the_commit_of_a_hub_checkpoint(checkpoints, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(checkpoints["llama"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (repository / "refs" / "old").write_text(commit[::-1])
    (repository / "snapshots" / commit[::-1]).symlink_to(checkpoints["llama"])
    new, old = (load_model("someone/tiny", device="cpu", revision=revision) for revision in (None, "old"))
    assert made_on(new).source.revision == commit
    assert f"at revision {commit[:12]}" in made_on(new).summary()
    with pytest.raises(ValueError, match="the revision"):
        made_on(old).check_model(new)


def test_vectors_are_equal_where_layers_directions_and_source_are(tmp_path):
    one = SteeringVector((1, 3), torch.randn(2, 8), VectorSource("model", "by hand"), FitMetrics(kl_explained=0.5))
    one.save(tmp_path / "vector")
    again = SteeringVector.load(tmp_path / "vector")
    assert one == again
    assert hash(one) == hash(again)
    assert {one: "owl"}[again] == "owl"
    others = [
        one.at(1),
        SteeringVector((1, 2), one.directions, one.source),
        2 * one,
        SteeringVector(one.layers, one.directions, VectorSource("other", "by hand")),
    ]
    assert not any(one == other for other in others)
    assert one != "owl"
